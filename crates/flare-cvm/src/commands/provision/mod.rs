//! `flare-cvm provision`: startup kits, sealed into bundles.

mod args;
mod parallel;
mod sites;

use anyhow::Result;

use super::progress::Progress;

pub use args::Provision;

/// Reads and checks everything before the first site is sealed, then seals all.
pub fn run(args: Provision) -> Result<()> {
    let progress = Progress::new(args.json);
    let sites = sites::prepare(&args)?;
    let jobs = match args.jobs {
        Some(jobs) => jobs.into(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    parallel::seal(&sites, jobs, &progress)
}
