"""Who calls: tokens, the keys that sign them, API keys, Cognito sessions."""
