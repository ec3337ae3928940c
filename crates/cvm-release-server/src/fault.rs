//! A failure of the key holder's own side.

/// Our own side failed; nothing was decided.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct Fault {
    doing: &'static str,
    problem: String,
}

impl Fault {
    /// What was being done, and what went wrong.
    pub fn new(doing: &'static str, problem: impl ToString) -> Self {
        Self { doing, problem: problem.to_string() }
    }
}
