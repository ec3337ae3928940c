//! What the connections share: the server, its limits, and the refusals that are only counted.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use cvm_base::time;
use cvm_release_server::{Decision, HttpReply, HttpRequest, Outcome, ReleaseServer, Verdict};
use tokio::sync::Semaphore;

use crate::{
    limit::{Limiter, Limits, Seats, lock},
    refusals::Refusals,
};

/// What every connection works with.
pub(super) struct Shared {
    pub(super) server: ReleaseServer,
    pub(super) limits: Limits,
    pub(super) requests: Limiter,
    pub(super) bodies: Arc<Seats>,
    pub(super) workers: Arc<Semaphore>,
    pub(super) refusals: Mutex<Refusals>,
    pub(super) report: Box<dyn Fn(&Decision) + Send + Sync>,
}

impl Shared {
    /// Answers one request, and reports its decision.
    pub(super) fn answer(&self, request: &HttpRequest<'_>, peer: IpAddr) -> HttpReply {
        let Outcome { reply, decision, attested } = self.server.handle(request, time::now());
        match decision.verdict {
            Verdict::Challenged => {}
            Verdict::Refused => self.refused(peer, decision, attested),
            _ => (self.report)(&decision),
        }
        reply
    }

    fn refused(&self, peer: IpAddr, decision: Decision, attested: bool) {
        {
            let mut refusals = lock(&self.refusals);
            if !refusals.has_room(peer, attested, Instant::now()) {
                return refusals.count(peer, &decision);
            }
        }
        // Strangers who never held a challenge decide nothing and fill no log.
        match decision.session.as_ref().map(|_| self.server.store.record(&decision)) {
            Some(Err(fault)) => {
                (self.report)(&Decision {
                    detail: format!("{} (not logged: {fault})", decision.detail),
                    ..decision
                });
            }
            _ => (self.report)(&decision),
        }
    }

    /// Logs how many refusals have no entry of their own. Counts that cannot be written now are
    /// kept.
    pub(super) fn summarize(&self) {
        let counts = lock(&self.refusals).take();
        for count in counts {
            let decision = count.decision(time::now());
            match self.server.store.record(&decision) {
                Ok(()) => (self.report)(&decision),
                Err(_) => lock(&self.refusals).keep(count),
            }
        }
    }
}
