"""The shell towards model providers: one small file for each way of reaching one."""
