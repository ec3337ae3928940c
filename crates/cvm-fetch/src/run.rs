//! One fetch: which requests are open, when each may be sent, and which pieces are whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cvm_collateral::{Item, Key, content};

use crate::{
    clock::Clock,
    error::FetchError,
    progress::Outcome,
    request::{Bases, Service, ServiceReply, ServiceRequest, assemble, requests},
};

/// One request on its way.
#[derive(Default)]
pub(crate) struct Task {
    pub(crate) tried: u32,
    pub(crate) not_before: Duration,
    pub(crate) last: Option<String>,
    pub(crate) state: State,
}

#[derive(Default)]
pub(crate) enum State {
    #[default]
    Open,
    Done(Result<ServiceReply, FetchError>),
}

#[derive(Default)]
pub(crate) struct ServiceState {
    pub(crate) ready: Duration,
}

/// The state of one fetch. Keys share requests: all platforms have the same QE identity.
pub(crate) struct Run {
    pub(crate) tasks: BTreeMap<ServiceRequest, Task>,
    pub(crate) services: BTreeMap<Service, ServiceState>,
    open: Vec<(Key, Vec<ServiceRequest>)>,
    pub(crate) outcome: Outcome,
}

impl Run {
    pub(crate) fn new(keys: &[Key], bases: &Bases) -> Self {
        let mut run = Self {
            tasks: BTreeMap::new(),
            services: BTreeMap::new(),
            open: Vec::new(),
            outcome: Outcome::default(),
        };
        let unique: BTreeSet<&Key> = keys.iter().collect();
        for key in unique {
            match requests(key, bases) {
                Ok(requests) => {
                    run.tasks
                        .extend(requests.iter().map(|request| (request.clone(), Task::default())));
                    run.open.push((key.clone(), requests));
                }
                Err(error) => run.outcome.failed.push((key.clone(), error)),
            }
        }
        run
    }

    /// The open request that may be sent first, and when: now, or later.
    pub(crate) fn next(&self, clock: &impl Clock) -> Option<(Duration, ServiceRequest)> {
        let now = clock.elapsed();
        let open = self.tasks.iter().filter(|(_, task)| matches!(task.state, State::Open));
        let timed = open.map(|(request, task)| {
            let ready =
                self.services.get(&request.service).map_or(Duration::ZERO, |service| service.ready);
            (now.max(ready).max(task.not_before), request)
        });
        timed.min().map(|(at, request)| (at, request.clone()))
    }

    /// No time is left for this request.
    pub(crate) fn late(&mut self, request: &ServiceRequest, limit: Duration) {
        if let Some(task) = self.tasks.get_mut(request) {
            let error =
                FetchError::Deadline { url: request.url.clone(), limit, last: task.last.clone() };
            task.state = State::Done(Err(error));
        }
    }

    /// A service that did not answer one request in all tries is not asked for the others.
    pub(crate) fn give_up(&mut self, service: Service, last: &str) {
        for (request, task) in &mut self.tasks {
            if request.service == service && matches!(task.state, State::Open) {
                let error = FetchError::ServiceDown { url: request.url.clone(), last: last.into() };
                task.state = State::Done(Err(error));
            }
        }
    }

    /// Hands on the pieces that are whole, and notes those that never will be.
    pub(crate) fn hand_on<E>(
        &mut self,
        clock: &impl Clock,
        keep: &mut dyn FnMut(Item) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open = Vec::new();
        for (key, requests) in std::mem::take(&mut self.open) {
            match self.result(&key, &requests) {
                None => open.push((key, requests)),
                Some(Err(error)) => self.outcome.failed.push((key, error)),
                Some(Ok(bytes)) => {
                    let urls: Vec<&str> =
                        requests.iter().map(|request| request.url.as_str()).collect();
                    keep(Item {
                        key: key.clone(),
                        bytes,
                        source: urls.join(" "),
                        fetched_at: clock.unix(),
                    })?;
                    self.outcome.fetched.push(key);
                }
            }
        }
        self.open = open;
        Ok(())
    }

    /// A key's piece, once all of its requests are answered or one of them failed.
    fn result(
        &self,
        key: &Key,
        requests: &[ServiceRequest],
    ) -> Option<Result<Vec<u8>, FetchError>> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut waits = false;
        for request in requests {
            match self.tasks.get(request).map(|task| &task.state) {
                Some(State::Done(Ok(reply))) => replies.push(reply),
                Some(State::Done(Err(error))) => return Some(Err(error.clone())),
                _ => waits = true,
            }
        }
        if waits {
            return None;
        }
        let url = requests.first().map(|request| request.url.clone()).unwrap_or_default();
        let piece = assemble(key, &replies).map_err(|problem| FetchError::Wrong { url, problem });
        Some(piece.and_then(|bytes| {
            content::check(key, &bytes)?;
            Ok(bytes)
        }))
    }
}
