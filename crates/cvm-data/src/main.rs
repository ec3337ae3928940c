//! `cvm-data disk` and `cvm-data nfs`: what user-data.service and user-data-nfs.service run.

use std::process::ExitCode;

use cvm_base::Explain;
use cvm_data::{DataError, disk, mounts::USER_DATA, nfs};

/// `EX_TEMPFAIL` of sysexits(3): user-data-nfs.service asks again.
const TRY_AGAIN: u8 = 75;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done: Result<Option<String>, DataError> =
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["disk"] => disk::attach().map(|source| Some(format!("{source} at {USER_DATA}"))),
            ["nfs"] => nfs::attach()
                .map(|export| export.map(|export| format!("{export} at {USER_DATA}/mnt"))),
            _ => {
                eprintln!("usage: cvm-data disk|nfs");
                return ExitCode::from(2);
            }
        };
    match done {
        Ok(Some(line)) => println!("user data: {line}, read-only"),
        Ok(None) => {}
        Err(error) => {
            eprintln!("error[{}]: {error}\nhelp: {}", error.code(), error.help());
            return if error.may_pass() { ExitCode::from(TRY_AGAIN) } else { ExitCode::FAILURE };
        }
    }
    ExitCode::SUCCESS
}
