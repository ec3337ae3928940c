//! What holds of the workspace as a whole, read from its files and from cargo.

mod features;
