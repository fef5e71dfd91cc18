//! The retry budget: what keeps retries from becoming the outage.
