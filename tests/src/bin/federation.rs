//! `make demo-federation`: a sealed server and two sealed clients train together on one machine.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cvm_lab::{
    federation::{Federation, SITES, attest_port},
    say,
};

/// How long a job may take under TCG.
const JOB_LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    cvm_lab::shown(demo)
}

fn demo(started: Instant) -> Result<()> {
    let federation = Federation::new("federation", 7643, |line| say(&format!("   {line}")))?;
    let head = |number, text: &str| {
        say(&format!("\n{number}. {text}   [{:.0} s]", started.elapsed().as_secs_f64()))
    };

    head(
        1,
        "Images, a ceremony of a model owner and two hospitals, and a sealed bundle for each site",
    );
    federation.sealed()?;

    head(
        2,
        "Key holders, the server CVM, and the client CVMs, which get half of their keys from the \
         server CVM",
    );
    let before = Instant::now();
    let mut running = federation.start()?;
    say(&format!(
        "   both clients are registered {:.0} s after power-on",
        before.elapsed().as_secs_f64()
    ));

    head(3, "From outside: each running CVM answers a fresh challenge");
    for (site, ..) in SITES {
        federation
            .attest(attest_port(site))
            .with_context(|| format!("{site} could not be attested"))?;
    }

    head(4, "A job that brings no code: federated averaging on the hospitals' own biopsies");
    let (job, result) = federation.train(JOB_LIMIT)?;
    say(&format!(
        "   job {job}: the global model's accuracy on data that no training saw: {}",
        result["accuracy"]
    ));

    head(
        5,
        "What NVFLARE refuses: a job that brings code, and results for anybody but the project \
         admin",
    );
    say(&format!("   {}", federation.byoc_refused(JOB_LIMIT)?));
    say(&format!("   {}", federation.download_refused(&job)?));

    head(6, "The server CVM is switched off and on again: its job store is still there");
    federation.reboot_server(&mut running)?;
    say(&format!("   {}", federation.admin(JOB_LIMIT, &["jobs"])?));
    federation.registered()?;

    head(7, "Power buttons: an orderly end");
    for (_, vm) in running.sites.iter_mut().rev() {
        vm.power_button()?;
    }
    say(&format!("\nThe demo took {:.0} s.", started.elapsed().as_secs_f64()));
    Ok(())
}
