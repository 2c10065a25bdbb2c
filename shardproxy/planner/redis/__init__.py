"""What each Redis command needs of the proxy: where its keys are, where it goes, how replies become one."""
