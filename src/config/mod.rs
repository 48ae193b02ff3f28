//! One typed configuration from flags, environment and a TOML file.
