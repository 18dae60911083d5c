"""The operator's command line: `weir keys create`, `weir status`. One file for each group of verbs;
the verbs themselves are those of the admin API (`weir.aws.operator`).
"""
