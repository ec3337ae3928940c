//! `cvm-keyholder`: the key holder that a server's CVM runs for the clients' CVMs.
//!
//! Its secrets lie in the server's sealed `site` volume, its settings and the agreement on the
//! verified p4, its store and its log on p5. Images of the agreement enrol themselves: nobody can
//! reach into a sealed CVM to do it.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use cvm_base::{Explain, read_bounded};
use cvm_custody::Unlock;
use cvm_keyholder::{
    KeyHolderError, protect,
    service::{Config, Limits, serve},
};
use cvm_layout::keyholder_conf::{self, KeyHolderConf};

/// Hold a delegated party's half for the client CVMs, inside the server CVM.
///
/// Prints one line `ready URL certificate=SHA256` and then a line a decision; ends on SIGTERM.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The party's folder, with unlock.key, policy.rego and ek-roots/ in it; only read
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Where the store and the log lie; made when missing
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// The folder with keyholder.yaml and agreement.txt
    #[arg(long, value_name = "FOLDER")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}\nnext: {}", error.code(), error.help());
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { dir, state, config }: Arguments) -> Result<(), KeyHolderError> {
    protect::no_dumps()?;
    let path = config.join(keyholder_conf::FILE);
    let conf = KeyHolderConf::parse(&read_bounded(&path, keyholder_conf::MAX_BYTES)?);
    let conf = conf.map_err(|source| KeyHolderError::Conf { path, source })?;
    let agreement = read_bounded(&config.join("agreement.txt"), cvm_ceremony::MAX_BYTES)?;
    let unlock = Unlock::beside(&dir);
    let config = Config {
        policy: dir.clone(),
        folder: dir,
        state,
        listen: conf.listen.to_string(),
        enroll_presented: Some(agreement),
        limits: Limits::default(),
    };
    serve(&config, &unlock)
}
