//! What a crossing cannot carry.
