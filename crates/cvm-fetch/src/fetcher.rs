//! The loop that asks, waits and hands on.

use std::time::Duration;

use cvm_collateral::{Item, Key};

use crate::{
    clock::Clock,
    error::FetchError,
    http::{self, Failure, Http, Network},
    limits::Limits,
    progress::{Outcome, Progress},
    request::{Bases, Service, ServiceRequest},
    run::{Run, State},
};

/// Asks vendors' services.
pub struct Fetcher<C> {
    http: Http,
    bases: Bases,
    limits: Limits,
    clock: C,
}

impl<C: Clock> Fetcher<C> {
    /// Prepares; nothing is sent yet.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new(
        bases: Bases,
        network: &Network,
        limits: Limits,
        clock: C,
    ) -> Result<Self, FetchError> {
        for base in [&bases.amd_kds, &bases.intel_pcs, &bases.intel_root, &bases.nvidia_rim] {
            http::check_base(base)?;
        }
        Ok(Self { http: Http::new(network, &limits)?, bases, limits, clock })
    }

    /// Fetches `keys`. Each piece goes to `keep` as soon as it is whole and is what its key says;
    /// an error of `keep` (a full disk) ends everything, any other failure only what it concerns.
    ///
    /// # Errors
    /// Only what `keep` returns; what services did is in the [`Outcome`].
    pub fn fetch<E>(
        &self,
        keys: &[Key],
        progress: &mut dyn FnMut(&Progress<'_>),
        keep: &mut dyn FnMut(Item) -> Result<(), E>,
    ) -> Result<Outcome, E> {
        let mut run = Run::new(keys, &self.bases);
        run.hand_on(&self.clock, keep)?;
        let end = self.clock.elapsed() + self.limits.total;
        while let Some((at, request)) = run.next(&self.clock) {
            let wait = at.saturating_sub(self.clock.elapsed());
            if at > end {
                run.late(&request, self.limits.total);
            } else {
                if wait >= Duration::from_secs(1) {
                    progress(&Progress::Waiting { url: &request.url, time: wait });
                }
                if !wait.is_zero() {
                    self.clock.sleep(wait);
                }
                self.ask(&mut run, &request, progress);
            }
            run.hand_on(&self.clock, keep)?;
        }
        Ok(run.outcome)
    }

    fn ask(
        &self,
        run: &mut Run,
        request: &ServiceRequest,
        progress: &mut dyn FnMut(&Progress<'_>),
    ) {
        let Some(task) = run.tasks.get_mut(request) else { return };
        progress(&Progress::Asking { url: &request.url, tried: task.tried });
        task.tried += 1;
        let answer = self.http.get(request, self.clock.unix());
        let now = self.clock.elapsed();
        let pace = if request.service == Service::AmdKds {
            self.limits.amd_pace
        } else {
            self.limits.pace
        };
        let service = run.services.entry(request.service).or_default();
        service.ready = service.ready.max(now + pace);
        match answer {
            Ok(reply) => task.state = State::Done(Ok(reply)),
            Err(Failure::Final(error)) => task.state = State::Done(Err(error)),
            Err(Failure::Transient { what, after, busy }) => {
                let pause = after.unwrap_or_else(|| self.pause(task.tried));
                task.not_before = now + pause;
                task.last = Some(what.clone());
                if busy {
                    service.ready = service.ready.max(task.not_before);
                }
                if task.tried >= self.limits.tries {
                    let error = FetchError::Unavailable {
                        url: request.url.clone(),
                        tries: task.tried,
                        last: what.clone(),
                    };
                    task.state = State::Done(Err(error));
                    run.give_up(request.service, &what);
                } else {
                    progress(&Progress::Failed { url: &request.url, what: &what });
                }
            }
        }
    }

    fn pause(&self, tried: u32) -> Duration {
        let doubled = self.limits.first_pause.saturating_mul(1 << tried.saturating_sub(1).min(16));
        let pause = doubled.min(self.limits.longest_pause);
        pause / 2 + (pause / 2).mul_f64(self.clock.fraction().clamp(0.0, 1.0))
    }
}
