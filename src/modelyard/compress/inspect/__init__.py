"""What a model is made of and where its time goes on this machine."""
