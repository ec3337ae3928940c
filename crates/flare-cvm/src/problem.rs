//! What is wrong with a command as it was given.

use anyhow::Result;
use cvm_base::Explain;

/// A command cannot be carried out as it was given.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Problem {
    code: &'static str,
    problem: String,
    help: String,
}

impl Problem {
    /// The problem as a command's result. `code` never changes its meaning.
    pub fn result<T>(
        code: &'static str,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Result<T> {
        Err(Self { code, problem: problem.into(), help: help.into() }.into())
    }
}

impl Explain for Problem {
    fn code(&self) -> &'static str {
        self.code
    }

    fn help(&self) -> String {
        self.help.clone()
    }
}
