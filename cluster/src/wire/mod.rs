//! Our own encodings of consensus data, on disk and between nodes. Conversions are fallible and never panic.
