//! One gateway node: starts everything, drains everything.
