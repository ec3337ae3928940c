//! A person vouches for the author of a file.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Result, bail};
use clap::Args;
use cvm_ceremony::{CeremonyError, Fingerprint, Signed, Statement};

use super::files::list;

#[derive(Args)]
pub struct Confirm {
    /// Go on without asking: the file came by a way on which nobody can change it
    #[arg(long, conflicts_with = "expect_fingerprint")]
    yes: bool,
    /// The fingerprint as its author read it; the file must have it. Once per author
    #[arg(long, value_name = "FINGERPRINT")]
    expect_fingerprint: Vec<Fingerprint>,
}

impl Confirm {
    /// Has a person, or the command line, vouch for the author of a statement.
    pub(super) fn check<S: Statement>(&self, signed: &Signed<S>) -> Result<()> {
        let (what, found) = (S::WHAT, signed.fingerprint());
        let author = signed.statement().signer().0.clone();
        println!("fingerprint of the {what} of {author}: {found}");
        if !self.expect_fingerprint.is_empty() {
            if self.expect_fingerprint.contains(&found) {
                return Ok(());
            }
            let expected =
                list(&self.expect_fingerprint.iter().map(ToString::to_string).collect::<Vec<_>>());
            bail!(CeremonyError::Fingerprint { what, author, expected, found });
        }
        if self.yes {
            return Ok(());
        }
        if std::io::stdin().is_terminal() {
            print!("Call {author}. Does {author} read the same from its screen? Type yes: ");
            std::io::stdout().flush()?;
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer)?;
            if answer.trim() == "yes" {
                return Ok(());
            }
        }
        bail!(CeremonyError::Unconfirmed { what, author })
    }
}
