"""Whether a request may go on: tokens, rates, admission, and the credential files that are read again."""
