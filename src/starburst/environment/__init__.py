"""The worker's environment: the user's packages as an image, the user's code as a layer in the bucket."""
