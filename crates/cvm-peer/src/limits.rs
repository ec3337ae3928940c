//! How long messages may be.

/// The longest message on the socket and from the node's port, its newline included: a token, and
/// what is said with it.
pub const MAX_MESSAGE: usize = 3 << 20;
/// The longest question to the node's port, which anybody may ask.
pub const MAX_QUESTION: usize = 1024;
