//! HTTP: routes, bodies, problem documents. Translates, decides nothing.
