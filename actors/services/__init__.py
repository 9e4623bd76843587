"""The services that miners offer: for each its inputs, its computation, its commitment and its check."""
