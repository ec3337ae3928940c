//! Asks vendors' services for collateral. For the command line alone: nothing on the boot path
//! fetches, and no program of a guest or a key holder links this crate (a test proves it).
//!
//! [`requests`] says what is asked, as a pure function; [`Fetcher`] asks, one request at a time,
//! with a pace per service, bounded tries with exponential backoff, and one deadline over all of
//! it. Each piece is handed on as soon as it is whole, so that an outage costs only what was not
//! fetched yet.

mod error;
mod http;
mod request;

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use error::FetchError;
pub use http::{Network, Proxy};
pub use request::{Bases, Reply, Request, Service, assemble, requests};

use cvm_collateral::{Item, Key, content};
use http::{Failure, Http};

/// How long things may take, and how often they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP and TLS handshakes.
    pub connect: Duration,
    /// One request, everything included.
    pub request: Duration,
    /// Everything, up to the beginning of the last request.
    pub total: Duration,
    /// How often one request is tried.
    pub tries: u32,
    /// The pause after the first failure; each later one is twice as long, up to `longest_pause`,
    /// and up to half of it is left out at random.
    pub first_pause: Duration,
    /// The longest pause that this program chooses; a service may ask for a longer one.
    pub longest_pause: Duration,
    /// The time between two requests to AMD, which allows one in ten seconds from one address.
    pub amd_pace: Duration,
    /// The time between two requests to any other service.
    pub pace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            request: seconds(60),
            total: seconds(600),
            tries: 6,
            first_pause: seconds(2),
            longest_pause: seconds(60),
            amd_pace: seconds(10),
            pace: Duration::from_millis(200),
        }
    }
}

/// Time and chance, so that tests need neither.
pub trait Clock {
    /// Time that only goes forward.
    fn elapsed(&self) -> Duration;
    /// Seconds since 1970 UTC.
    fn unix(&self) -> u64;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// A number in 0..1.
    fn fraction(&self) -> f64;
}

/// The machine's.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn fraction(&self) -> f64 {
        // Which number does not matter to anything but politeness.
        getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
    }
}

/// What happens, for whoever watches. `Display` is a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A request begins.
    Asking {
        /// What is asked.
        url: &'a str,
        /// How often it was asked before.
        tried: u32,
    },
    /// An attempt failed, and will be repeated.
    Failed {
        /// What was asked.
        url: &'a str,
        /// What happened.
        what: &'a str,
    },
    /// The next request must wait.
    Waiting {
        /// What will be asked.
        url: &'a str,
        /// For how long.
        time: Duration,
    },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking { url, tried: 0 } => write!(f, "asking {url}"),
            Self::Asking { url, tried } => write!(f, "asking {url} again ({tried} tried)"),
            Self::Failed { url, what } => write!(f, "{url}: {what}; it will be tried again"),
            Self::Waiting { url, time } => {
                write!(f, "waiting {:.0} s before {url}", time.as_secs_f64().ceil())
            }
        }
    }
}

/// What happened to each key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Fetched, and handed on.
    pub fetched: Vec<Key>,
    /// Not fetched, and why.
    pub failed: Vec<(Key, FetchError)>,
}

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

    fn ask(&self, run: &mut Run, request: &Request, progress: &mut dyn FnMut(&Progress<'_>)) {
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

/// One request on its way.
#[derive(Default)]
struct Task {
    tried: u32,
    not_before: Duration,
    last: Option<String>,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Open,
    Done(Result<Reply, FetchError>),
}

#[derive(Default)]
struct ServiceState {
    ready: Duration,
}

/// One call of [`Fetcher::fetch`]. Keys share requests: the QE identity is one for all platforms.
struct Run {
    tasks: BTreeMap<Request, Task>,
    services: BTreeMap<Service, ServiceState>,
    open: Vec<(Key, Vec<Request>)>,
    outcome: Outcome,
}

impl Run {
    fn new(keys: &[Key], bases: &Bases) -> Self {
        let mut run = Self {
            tasks: BTreeMap::new(),
            services: BTreeMap::new(),
            open: Vec::new(),
            outcome: Outcome::default(),
        };
        let unique: std::collections::BTreeSet<&Key> = keys.iter().collect();
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
    fn next(&self, clock: &impl Clock) -> Option<(Duration, Request)> {
        let now = clock.elapsed();
        let open = self.tasks.iter().filter(|(_, task)| matches!(task.state, State::Open));
        let timed = open.map(|(request, task)| {
            let ready =
                self.services.get(&request.service).map_or(Duration::ZERO, |service| service.ready);
            (now.max(ready).max(task.not_before), request)
        });
        timed.min().map(|(at, request)| (at, request.clone()))
    }

    /// There is no time for this request, and then for none of the open ones behind it.
    fn late(&mut self, request: &Request, limit: Duration) {
        if let Some(task) = self.tasks.get_mut(request) {
            let error =
                FetchError::Deadline { url: request.url.clone(), limit, last: task.last.clone() };
            task.state = State::Done(Err(error));
        }
    }

    /// A service that did not answer one request in all tries is not asked for the others.
    fn give_up(&mut self, service: Service, last: &str) {
        for (request, task) in &mut self.tasks {
            if request.service == service && matches!(task.state, State::Open) {
                let error = FetchError::ServiceDown { url: request.url.clone(), last: last.into() };
                task.state = State::Done(Err(error));
            }
        }
    }

    /// Hands on what is whole, and notes what will not be.
    fn hand_on<E>(
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
    fn result(&self, key: &Key, requests: &[Request]) -> Option<Result<Vec<u8>, FetchError>> {
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
