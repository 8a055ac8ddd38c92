"""What a run leaves at its output, be that a folder or a place in a bucket, and who may write there. No TensorFlow."""
