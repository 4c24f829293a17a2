"""One module a check: ``check(session)`` returns a sentence, or raises `Failed` or `NotChecked`."""
