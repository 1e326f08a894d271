"""Where the time of one lone text goes, from the client through gateway and Triton and back."""
