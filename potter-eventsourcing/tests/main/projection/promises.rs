//! The traps of event stores and projections, each a test by its name.
