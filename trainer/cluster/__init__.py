"""Jobs on Kubernetes, from outside and from inside: the only importer of the kubernetes client. No TensorFlow."""
