//! The OCI runtime specification: `config.json` and the state document.
