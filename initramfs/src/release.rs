//! The exchange with all key holders of a stage, as a typestate machine: [`Ready`] → [`Released`] →
//! [`Derived`].
//!
//! A boot has one exchange. Where the image requires GPUs, the running system has a second one,
//! which gives the keys of p5 and `state` and nothing else ([`Stage`]).
//!
//! Each state offers only what is legal in it, and moving on consumes it. Types bind the source
//! code, not a processor under a glitch; so each step also extends a running hash, and the keys are
//! made, and the exchange ends, only where the hash is the one that a complete exchange over this
//! manifest and transcript gives.

use std::{collections::BTreeMap, fmt, marker::PhantomData, thread, time::Instant};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::split_key::{
    CombinedKey, Half, MachineSecret, Purpose, bind, derive, party_halves,
};
use cvm_layout::{
    manifest::{ImageId, Manifest, Stage},
    names::Name,
};
use cvm_release::{
    client::{Failure as Cause, ReleaseError, SealState},
    messages::MachineRule,
};
use cvm_release_https::{Attester, Holder, Session};
use cvm_seal::{DiskKey, MacKey};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    seal_plan::Memory,
};

/// A key holder that can be asked for its half.
pub trait KeyHolder: Send + Sync {
    /// The whole exchange, each wait bounded.
    fn release(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Box<dyn Attested>, ReleaseError>;
}

/// A key holder that accepted the evidence.
pub trait Attested: Send {
    /// Its half: secret.
    fn half(&self) -> &[u8; 32];
    /// What it remembers of p5.
    fn seal_state(&self) -> Result<Option<SealState>, ReleaseError>;
    /// Tells it p5's header, and its share of the machine's secret if there is one.
    fn register_seal(
        &self,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError>;
    /// Its statement about this CVM's attestation key, JSON; `None` if it makes none.
    fn attestation_key(&self) -> Result<Option<Value>, ReleaseError>;
}

impl KeyHolder for Holder {
    fn release(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Box<dyn Attested>, ReleaseError> {
        Holder::release(self, image, stage, attester)
            .map(|session| Box::new(session) as Box<dyn Attested>)
    }
}

impl Attested for Session {
    fn half(&self) -> &[u8; 32] {
        Session::half(self)
    }

    fn seal_state(&self) -> Result<Option<SealState>, ReleaseError> {
        Session::seal_state(self)
    }

    fn register_seal(
        &self,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError> {
        Session::register_seal(self, header_sha256, share)
    }

    fn attestation_key(&self) -> Result<Option<Value>, ReleaseError> {
        Session::attestation_key(self)
    }
}

/// The exchange in state `S`.
pub struct Exchange<'a, S> {
    manifest: &'a Manifest,
    stage: Stage,
    order: Order,
    state: PhantomData<S>,
    sessions: Vec<(&'a Name, Box<dyn Attested>)>,
}

/// Nobody was asked.
pub enum Ready {}
/// Every party released its half.
pub enum Released {}
/// The keys were made; the sessions still serve the seal memory.
pub enum Derived {}

/// The keys that need the halves of all parties; wiped on drop.
pub struct DataKeys {
    /// Opens p5.
    pub jobs: AreaKeys,
    /// Opens `state`.
    pub state: AreaKeys,
}

/// What opens one area and what authenticates its header.
pub struct AreaKeys {
    /// The passphrase.
    pub disk: DiskKey,
    /// The header's MAC key.
    pub mac: MacKey,
    /// Whose halves made them, for the console.
    pub from: String,
}

/// What one key holder remembers of an image.
pub struct Remembered<'a> {
    /// The party.
    pub name: &'a Name,
    /// p5's header.
    pub memory: Memory,
    /// The third factor.
    pub machine: Machine,
}

/// What one key holder says of the third factor.
pub struct Machine {
    /// What its policy allows to this machine.
    pub allowed: MachineRule,
    /// It holds a share: the keys need a machine's secret.
    pub bound: bool,
    /// The share, while its operator allows the image to move: secret.
    pub share: Option<Zeroizing<[u8; 32]>>,
}

impl<'a> Exchange<'a, Ready> {
    /// Begins a stage, with a manifest that was verified.
    pub fn new(manifest: &'a Manifest, manifest_sha256: Bytes32, stage: Stage) -> Self {
        let order = Order::begin(manifest, manifest_sha256, stage);
        Self { manifest, stage, order, state: PhantomData, sessions: vec![] }
    }

    /// Attests to and fetches from all key holders of the stage at once. Fails with the first
    /// party's failure (in the transcript's order), after every failure was printed.
    pub fn release(
        mut self,
        holders: &BTreeMap<&Name, Box<dyn KeyHolder>>,
        attester: &(dyn Attester + Sync),
    ) -> Result<Exchange<'a, Released>, Failure> {
        let parties = self.manifest.asked(self.stage).map(|party| &party.name);
        let (image, stage) = (&self.manifest.image_id, self.stage);
        let answers: Vec<_> = thread::scope(|scope| {
            let ask = |name: &'a Name| {
                let holder = holders.get(name);
                let thread = scope.spawn(move || {
                    let begin = Instant::now();
                    let missing =
                        || Failure::new(Code::Order, format_args!("{name} was not prepared"));
                    let answer = holder
                        .ok_or_else(missing)?
                        .release(image, stage, attester)
                        .map_err(failure_of);
                    report(name, &answer, begin);
                    answer
                });
                (name, thread)
            };
            let threads: Vec<_> = parties.map(ask).collect();
            let panicked = |_| Err(Failure::new(Code::Panic, "a thread of the exchange"));
            threads
                .into_iter()
                .map(|(name, thread)| (name, thread.join().unwrap_or_else(panicked)))
                .collect()
        });
        let failed = answers.iter().filter(|(_, answer)| answer.is_err()).count();
        for (name, answer) in answers {
            let session = answer.map_err(|failure| match failed {
                1 => failure,
                n => Failure::new(
                    failure.code,
                    format_args!("{} (and {} more, see above)", failure.detail, n - 1),
                ),
            })?;
            self.order.then("half", name);
            self.sessions.push((name, session));
        }
        Ok(self.into())
    }
}

impl<'a> Exchange<'a, Released> {
    /// Nobody was left out: the halves may be joined.
    pub fn derive(mut self) -> Result<Exchange<'a, Derived>, Failure> {
        self.order.check(Order::released(self.manifest, self.order.manifest_sha256, self.stage))?;
        self.order.then("derive", "");
        Ok(self.into())
    }
}

impl<'a> Exchange<'a, Derived> {
    /// What opens p3's first area: the builder sealed it, who knows no machine.
    pub fn system(&self) -> Result<AreaKeys, Failure> {
        self.area(Purpose::System, Purpose::HeaderMacSystem, None)
    }

    /// What opens p5 and `state`; with a third factor, they need this machine too.
    pub fn data(&self, machine: Option<&MachineSecret>) -> Result<DataKeys, Failure> {
        Ok(DataKeys {
            jobs: self.area(Purpose::Jobs, Purpose::HeaderMacJobs, machine)?,
            state: self.area(Purpose::State, Purpose::HeaderMacState, machine)?,
        })
    }

    fn area(
        &self,
        disk: Purpose,
        mac: Purpose,
        machine: Option<&MachineSecret>,
    ) -> Result<AreaKeys, Failure> {
        let from = party_halves(&self.manifest.split_key, disk)
            .map(Name::as_str)
            .collect::<Vec<_>>()
            .join(" and ");
        let (disk, mac) = (self.key(disk, machine)?, self.key(mac, machine)?);
        Ok(AreaKeys { disk: DiskKey::new(disk.as_bytes()), mac: MacKey::new(mac.as_bytes()), from })
    }

    /// p3's keys as one secret, for a TPM that may keep them: key ‖ MAC key.
    pub fn system_secret(&self) -> Result<Zeroizing<[u8; 64]>, Failure> {
        let mut secret = Zeroizing::new([0; 64]);
        let (disk, mac) = secret.split_at_mut(32);
        disk.copy_from_slice(self.key(Purpose::System, None)?.as_bytes());
        mac.copy_from_slice(self.key(Purpose::HeaderMacSystem, None)?.as_bytes());
        Ok(secret)
    }

    fn key(
        &self,
        purpose: Purpose,
        machine: Option<&MachineSecret>,
    ) -> Result<CombinedKey, Failure> {
        // A half of one stage is no half of the other's keys; joined all the same, it would make a
        // wrong key silently.
        if self.manifest.stage_of(purpose.parties()) != self.stage {
            return Err(Failure::new(
                Code::Order,
                format_args!("{purpose} is not of stage {:?}", self.stage),
            ));
        }
        let halves = self
            .sessions
            .iter()
            .map(|(name, session)| ((*name).clone(), Half::from_bytes(session.half())));
        let (split_key, image) = (&self.manifest.split_key, &self.manifest.image_id);
        let key = derive(split_key, &halves.collect(), purpose, image).code(Code::Derivation)?;
        match machine {
            None => Ok(key),
            Some(machine) => bind(&key, machine, purpose, image).code(Code::Derivation),
        }
    }

    /// What each key holder remembers of p5, and what it says of the third factor.
    pub fn remembered(&self) -> Result<Vec<Remembered<'a>>, Failure> {
        let ask = |(name, session): &(&'a Name, Box<dyn Attested>)| {
            let state = session.seal_state().map_err(|e| with(Code::SealMemory, name, &e))?;
            let memory = match &state {
                None => Memory::None,
                Some(SealState { header_sha256: None, .. }) => Memory::Fresh,
                Some(SealState { header_sha256, .. }) => Memory::Sealed(*header_sha256),
            };
            let SealState { allowed, bound, share, .. } = state.unwrap_or_default();
            // It learns of a header and of its share at once. Believed, this could bind a p5 that
            // is not made yet.
            if bound && !matches!(memory, Memory::Sealed(_)) {
                return Err(Failure::new(
                    Code::SealMemory,
                    format_args!("{name}: a share, and no header that needs it"),
                ));
            }
            Ok(Remembered { name, memory, machine: Machine { allowed, bound, share } })
        };
        self.sessions.iter().map(ask).collect()
    }

    /// Tells every key holder that has a memory, and does not have it yet, which header p5 now
    /// carries and what its share of the machine's secret is. Idempotent.
    pub fn register(
        &self,
        remembered: &[Remembered<'_>],
        header_sha256: Bytes32,
        machine: Option<&MachineSecret>,
    ) -> Result<(), Failure> {
        let split_key = &self.manifest.split_key;
        let names: Vec<_> = split_key.parties.iter().map(|party| &party.name).collect();
        let shares = machine
            .map(|machine| machine.shares(&split_key.transcript, &names, &self.manifest.image_id))
            .transpose()
            .code(Code::Derivation)?;
        for (at, name) in names.into_iter().enumerate() {
            let session =
                self.sessions.iter().find(|(of, _)| *of == name).map(|(_, session)| session);
            let known = remembered.iter().find(|r| r.name == name);
            let (Some(session), Some(known)) = (session, known) else { continue };
            let share =
                shares.as_ref().and_then(|shares| shares.get(at)).map(|share| share.as_bytes());
            let given = known.machine.share.as_deref();
            if given.is_some() && given != share {
                step(
                    "register",
                    format_args!(
                        "{name}'s share is none of this image's third factor: its move goes on"
                    ),
                );
            // A share that was given out says that the image moved: telling it back ends the move.
            } else if known.memory == Memory::Fresh || given.is_some() {
                session
                    .register_seal(header_sha256, share)
                    .map_err(|e| with(Code::Register, name, &e))?;
                step("register", format_args!("{name} remembers p5's header {header_sha256}"));
            }
        }
        Ok(())
    }

    /// What the key holders state of this CVM's attestation key, for its peers, who verify it.
    pub fn attestation_keys(&self) -> Result<Vec<Value>, Failure> {
        let mut certificates = Vec::new();
        for (name, session) in &self.sessions {
            match session.attestation_key().map_err(failure_of)? {
                Some(certificate) => certificates.push(certificate),
                None => step(
                    "register",
                    format_args!("{name} makes no statement about the attestation key"),
                ),
            }
        }
        Ok(certificates)
    }

    /// Ends the exchange: the halves and the sessions' keys are wiped.
    pub fn end(mut self) -> Result<(), Failure> {
        let mut expected = Order::released(self.manifest, self.order.manifest_sha256, self.stage);
        expected.then("derive", "");
        self.sessions.clear();
        self.order.check(expected)
    }
}

impl<'a, S> Exchange<'a, S> {
    /// The next state. Private: each state says by its own methods what may follow.
    fn into<T>(self) -> Exchange<'a, T> {
        let Self { manifest, stage, order, sessions, .. } = self;
        Exchange { manifest, stage, order, state: PhantomData, sessions }
    }
}

fn report(name: &Name, answer: &Result<Box<dyn Attested>, Failure>, begin: Instant) {
    match answer {
        Ok(_) => step(
            "release",
            format_args!("{name} released its half after {:.1} s", begin.elapsed().as_secs_f64()),
        ),
        Err(failure) => step("release", failure),
    }
}

/// The code of a key holder's failure; the error's text names the party.
pub fn failure_of(error: ReleaseError) -> Failure {
    let code = match error.failure.root() {
        Cause::WrongCertificate { .. } => Code::Certificate,
        Cause::Refused { .. } => Code::Refused,
        Cause::Protocol(_) | Cause::Tls(_) => Code::Protocol,
        Cause::NoChallenge => Code::NoChallenge,
        Cause::Evidence(_) | Cause::Local(_) => Code::Evidence,
        _ => Code::Unreachable,
    };
    Failure::new(code, error)
}

fn with(code: Code, name: &Name, error: &ReleaseError) -> Failure {
    Failure::new(code, format_args!("{name}: {error}"))
}

/// A running hash over the exchange's steps.
#[derive(Clone, Copy)]
struct Order {
    manifest_sha256: Bytes32,
    digest: Bytes32,
}

impl Order {
    fn begin(manifest: &Manifest, manifest_sha256: Bytes32, stage: Stage) -> Self {
        let mut order = Self { manifest_sha256, digest: manifest_sha256 };
        order.then("transcript", manifest.split_key.transcript);
        order.then("stage", format_args!("{stage:?}"));
        order
    }

    /// What the hash must be once every party of the stage has released.
    fn released(manifest: &Manifest, manifest_sha256: Bytes32, stage: Stage) -> Self {
        let mut order = Self::begin(manifest, manifest_sha256, stage);
        manifest.asked(stage).for_each(|party| order.then("half", &party.name));
        order
    }

    fn then(&mut self, step: &str, what: impl fmt::Display) {
        self.digest = sha256(format!("{} {step} {what}", self.digest).as_bytes());
    }

    fn check(&self, expected: Self) -> Result<(), Failure> {
        if self.digest == expected.digest {
            return Ok(());
        }
        Err(Failure::new(Code::Order, "the running hash of the exchange's steps differs"))
    }
}

#[cfg(test)]
mod tests;
