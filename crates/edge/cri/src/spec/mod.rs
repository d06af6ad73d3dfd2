//! Pure: what the kubelet asked for becomes an OCI runtime spec.
