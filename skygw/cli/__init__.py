"""The `skygw` command: argv and environment in, sentences and exit codes out. Nothing else prints or exits."""
