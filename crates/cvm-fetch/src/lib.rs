//! Asks vendors' services for collateral.
//!
//! The command line alone links this crate (`flare-cvm collateral fetch`). Nothing on the boot path
//! fetches, and no program of a guest or a key holder may link it; a test proves that.
//!
//! [`requests`] says what to ask for a key, and [`assemble`] makes the piece out of the answers.
//! Both are pure functions. A [`Fetcher`] asks, one request at a time, with a pace per service,
//! bounded tries with exponential backoff, and one deadline over all of it. It hands on each piece
//! as soon as it is whole, so that an outage costs only what was not fetched yet.
//!
//! | module | content |
//! |---|---|
//! | `request` | [`ServiceRequest`], [`ServiceReply`], [`Bases`]: what to ask whom |
//! | `fetcher`, `run` | [`Fetcher`], and the state of one fetch |
//! | `limits`, `clock` | [`Limits`]; [`Clock`], which tests replace |
//! | `http` | one request over HTTPS; [`Network`] |
//! | `progress` | [`Progress`], [`Outcome`] |
//!
//! ```no_run
//! use cvm_collateral::{Key, Writer, open_or_create_key};
//! use cvm_fetch::{Bases, Fetcher, Limits, Network, SystemClock};
//!
//! let (key, _) = open_or_create_key("my.key".as_ref())?;
//! let mut cache = Writer::open("collateral".as_ref(), key, &[])?;
//! let fetcher = Fetcher::new(
//!     Bases::default(),
//!     &Network::default(),
//!     Limits::default(),
//!     SystemClock::default(),
//! )?;
//! let outcome = fetcher.fetch(
//!     &[Key::parse("amd-crl", "vcek/Milan")?],
//!     &mut |event| println!("{event}"),
//!     &mut |item| cache.put(&item).map(|_| ()),
//! )?;
//! println!("{} fetched, {} failed", outcome.fetched.len(), outcome.failed.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod error;
mod fetcher;
mod http;
mod limits;
mod progress;
mod request;
mod run;

pub use clock::{Clock, SystemClock};
pub use error::FetchError;
pub use fetcher::Fetcher;
pub use http::{Network, Proxy};
pub use limits::Limits;
pub use progress::{Outcome, Progress};
pub use request::{Bases, Service, ServiceReply, ServiceRequest, assemble, requests};
