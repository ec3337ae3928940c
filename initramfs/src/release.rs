//! The exchange with all key holders of a stage, as a typestate machine:
//!
//! | state | what it can do |
//! |---|---|
//! | [`Ready`] | ask all key holders at once |
//! | [`Released`] | join their halves, and hear what they remember |
//! | [`Joined`] | make p3's keys; try a candidate for the machine's secret on headers alone |
//! | [`Settled`] | make the keys of p5 and `state`, register p5's header, end |
//!
//! Each state offers only what is legal in it, and moving on consumes it. So no key of p5 or
//! `state` exists before the machine's part in them is decided, and none can be replaced after:
//!
//! ```compile_fail,E0599
//! use cvm_init::release::{DataKeys, Exchange, Joined};
//! fn keys(exchange: &Exchange<'_, Joined>) -> DataKeys {
//!     exchange.data_keys().unwrap()
//! }
//! ```
//!
//! ```no_run
//! use cvm_init::release::{DataKeys, Exchange, Settled};
//! fn keys(exchange: &Exchange<'_, Settled>) -> DataKeys {
//!     exchange.data_keys().unwrap()
//! }
//! ```
//!
//! Types bind the source code, not a processor under a glitch. So each step also extends a running
//! hash, and the keys are made, and the exchange ends, only where the hash is the one that a
//! complete exchange over this manifest and transcript gives.
//!
//! A boot has one exchange. Where the image requires GPUs, the running system has a second one,
//! which gives the keys of p5 and `state` and nothing else ([`Stage`]).

mod holder;
mod order;

use std::{collections::BTreeMap, thread, time::Instant};

use cvm_base::Bytes32;
use cvm_ceremony::split_key::{
    CombinedKey, Half, MachineSecret, Purpose, bind, derive, party_halves,
};
use cvm_layout::{
    manifest::{ImageId, KeyPurpose, Manifest, Stage},
    names::Name,
};
use cvm_release::{
    client::{Failure as Cause, ReleaseError, SealState},
    messages::MachineRule,
};
use cvm_release_https::Attester;
use cvm_seal::{DiskKey, MacKey};
use serde_json::Value;
use zeroize::Zeroizing;

use self::order::Order;
use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    seal_plan::SealMemory,
};

pub use self::holder::{Attested, KeyHolder};

/// The exchange in state `S`.
pub struct Exchange<'a, S> {
    manifest: &'a Manifest,
    stage: Stage,
    order: Order,
    state: S,
    sessions: Vec<(&'a Name, Box<dyn Attested>)>,
    /// Of every session, from [`Joined`] on.
    remembered: Vec<Remembered<'a>>,
}

/// Nobody was asked.
pub struct Ready(());
/// Every party released its half.
pub struct Released(());
/// The halves are joined; the machine's part in the keys of p5 and `state` is open.
pub struct Joined(());
/// The machine's part is decided; the sessions still serve the seal memory.
pub struct Settled {
    /// The secret that the keys of p5 and `state` need; without one, the halves alone make them.
    machine: Option<MachineSecret>,
}

/// The exchange has ended: halves, keys of sessions and the machine's secret are wiped.
#[derive(Debug)]
pub struct Ended(());

/// The keys that need the halves of all parties; wiped on drop.
pub struct DataKeys {
    /// Opens p5.
    pub jobs: AreaKeys,
    /// Opens `state`.
    pub state: AreaKeys,
}

/// What authenticates the headers of p5 and `state`, and opens neither; wiped on drop.
pub struct HeaderKeys {
    /// p5's.
    pub jobs: MacKey,
    /// `state`'s.
    pub state: MacKey,
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
    pub seal: SealMemory,
    /// The third factor.
    pub third_factor: ThirdFactor,
}

/// What one key holder says of the third factor, the machine's secret.
pub struct ThirdFactor {
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
        Self { manifest, stage, order, state: Ready(()), sessions: vec![], remembered: vec![] }
    }

    /// Attests to all key holders of the stage at once, and fetches their halves. Fails with the
    /// first party's failure (in the transcript's order), after every failure was printed.
    pub fn release(
        mut self,
        holders: &BTreeMap<&Name, Box<dyn KeyHolder>>,
        attester: &(dyn Attester + Sync),
    ) -> Result<Exchange<'a, Released>, Failure> {
        let parties = self.manifest.asked(self.stage).map(|party| &party.name);
        let (image, stage) = (&self.manifest.image_id, self.stage);
        let with_gpus = if stage == Stage::Running { ", with GPUs" } else { "" };
        step("attest", format_args!("asking {} key holders at once{with_gpus}", holders.len()));
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
        Ok(self.into(Released(())))
    }
}

impl<'a> Exchange<'a, Released> {
    /// Joins the halves, if nobody was left out, and asks every key holder what it remembers.
    pub fn join(mut self) -> Result<Exchange<'a, Joined>, Failure> {
        self.order.check(Order::released(self.manifest, self.order.manifest_sha256, self.stage))?;
        self.order.then("derive", "");
        let recall = |(name, session): &(&'a Name, Box<dyn Attested>)| recall(name, &**session);
        self.remembered = self.sessions.iter().map(recall).collect::<Result<_, _>>()?;
        for Remembered { name, seal, .. } in &self.remembered {
            step("memory", format_args!("{name} {seal}"));
        }
        Ok(self.into(Joined(())))
    }
}

impl<'a> Exchange<'a, Joined> {
    /// What opens p3's first area: the builder sealed it, who knows no machine.
    pub fn system_keys(&self) -> Result<AreaKeys, Failure> {
        self.area_keys(Purpose::System, Purpose::HeaderMacSystem, None)
    }

    /// What authenticates the headers of p5 and `state`, if `candidate` is the machine's secret.
    pub fn candidate_header_keys(
        &self,
        candidate: Option<&MachineSecret>,
    ) -> Result<HeaderKeys, Failure> {
        self.make_header_keys(candidate)
    }

    /// Whether the keys of p5 and `state` are made in this stage.
    pub fn makes_data_keys(&self) -> bool {
        self.manifest.stage_of(KeyPurpose::Jobs) == self.stage
    }

    /// The image.
    pub(crate) fn manifest(&self) -> &'a Manifest {
        self.manifest
    }

    /// What each key holder remembers; [`Self::settle`] takes it back.
    pub(crate) fn take_remembered(&mut self) -> Vec<Remembered<'a>> {
        std::mem::take(&mut self.remembered)
    }

    /// Decides the machine's part. For [`crate::machine::settle`] alone, which has the headers
    /// prove it.
    pub(crate) fn settle(
        self,
        machine: Option<MachineSecret>,
        remembered: Vec<Remembered<'a>>,
    ) -> Exchange<'a, Settled> {
        Exchange { remembered, ..self.into(Settled { machine }) }
    }

    /// Decides, in the running system, that the halves alone make the keys: a TPM gives back what
    /// it keeps to the boot alone, so what opens later cannot need it.
    ///
    /// # Errors
    /// [`Code::Order`] in the boot.
    pub fn settle_running(mut self) -> Result<Exchange<'a, Settled>, Failure> {
        if self.stage != Stage::Running {
            return Err(Failure::new(Code::Order, "a boot decides its machine's part by headers"));
        }
        let remembered = self.take_remembered();
        Ok(self.settle(None, remembered))
    }
}

impl<'a> Exchange<'a, Settled> {
    /// What opens p5 and `state`; with a third factor, they need this machine too.
    pub fn data_keys(&self) -> Result<DataKeys, Failure> {
        let machine = self.state.machine.as_ref();
        Ok(DataKeys {
            jobs: self.area_keys(Purpose::Jobs, Purpose::HeaderMacJobs, machine)?,
            state: self.area_keys(Purpose::State, Purpose::HeaderMacState, machine)?,
        })
    }

    /// What authenticates the headers of p5 and `state`.
    pub fn header_keys(&self) -> Result<HeaderKeys, Failure> {
        self.make_header_keys(self.state.machine.as_ref())
    }

    /// Whose halves make the keys of p5 and `state`, for the console.
    pub fn data_from(&self) -> String {
        match self.manifest.stage_of(KeyPurpose::Jobs) == self.stage {
            true => self.parties_of(Purpose::Jobs),
            false => "nobody yet: they wait for GPUs".into(),
        }
    }

    /// p3's keys as one secret, for a TPM that may keep them: key ‖ MAC key.
    pub fn system_secret(&self) -> Result<Zeroizing<[u8; 64]>, Failure> {
        let mut secret = Zeroizing::new([0; 64]);
        let (disk, mac) = secret.split_at_mut(32);
        disk.copy_from_slice(self.key(Purpose::System, None)?.as_bytes());
        mac.copy_from_slice(self.key(Purpose::HeaderMacSystem, None)?.as_bytes());
        Ok(secret)
    }

    /// The image whose id begins what a TPM keeps of it.
    pub fn image(&self) -> &ImageId {
        &self.manifest.image_id
    }

    /// Whether every owner of p3's key allows this machine to keep a copy of it.
    pub fn owners_allow_offline(&self) -> bool {
        let owns = |name: &Name| {
            let parties = &self.manifest.split_key.parties;
            parties.iter().any(|p| p.name == *name && p.purposes.contains(&KeyPurpose::System))
        };
        let mut owners = self.remembered.iter().filter(|r| owns(r.name));
        owners.all(|r| r.third_factor.allowed.offline)
    }

    /// What each key holder remembers of p5, in the order of the sessions.
    pub fn seal_memories(&self) -> Vec<SealMemory> {
        self.remembered.iter().map(|r| r.seal).collect()
    }

    /// Tells every key holder that has a memory, and does not have it yet, which header p5 now
    /// carries and what its share of the machine's secret is. Idempotent.
    pub fn register(&self, header_sha256: Bytes32) -> Result<(), Failure> {
        let split_key = &self.manifest.split_key;
        let names: Vec<_> = split_key.parties.iter().map(|party| &party.name).collect();
        let machine = self.state.machine.as_ref();
        let shares = machine
            .map(|machine| machine.shares(&split_key.transcript, &names, &self.manifest.image_id))
            .transpose()
            .code(Code::Derivation)?;
        for (at, name) in names.into_iter().enumerate() {
            let session =
                self.sessions.iter().find(|(of, _)| *of == name).map(|(_, session)| session);
            let known = self.remembered.iter().find(|r| r.name == name);
            let (Some(session), Some(known)) = (session, known) else { continue };
            let share =
                shares.as_ref().and_then(|shares| shares.get(at)).map(|share| share.as_bytes());
            let shown = known.third_factor.share.as_deref();
            if shown.is_some() && shown != share {
                step(
                    "register",
                    format_args!(
                        "{name}'s share is not of this image's third factor: its move goes on"
                    ),
                );
            // A share that was given out says that the image moved: telling it back ends the move.
            } else if known.seal == SealMemory::Fresh || shown.is_some() {
                session
                    .register_seal(header_sha256, share)
                    .map_err(|e| failure_at(Code::Register, name, &e))?;
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

    /// Ends the exchange: the halves, the sessions' keys and the machine's secret are wiped.
    pub fn end(self) -> Result<Ended, Failure> {
        let Self { manifest, stage, order, state, sessions, remembered } = self;
        drop((sessions, remembered, state));
        let mut expected = Order::released(manifest, order.manifest_sha256, stage);
        expected.then("derive", "");
        order.check(expected).map(|()| Ended(()))
    }
}

impl<'a, S> Exchange<'a, S> {
    /// The next state. Private: each state says by its own methods what may follow.
    fn into<T>(self, state: T) -> Exchange<'a, T> {
        let Self { manifest, stage, order, sessions, remembered, .. } = self;
        Exchange { manifest, stage, order, state, sessions, remembered }
    }

    fn make_header_keys(&self, machine: Option<&MachineSecret>) -> Result<HeaderKeys, Failure> {
        let mac = |purpose| Ok(MacKey::new(self.key(purpose, machine)?.as_bytes()));
        Ok(HeaderKeys { jobs: mac(Purpose::HeaderMacJobs)?, state: mac(Purpose::HeaderMacState)? })
    }

    fn area_keys(
        &self,
        disk: Purpose,
        mac: Purpose,
        machine: Option<&MachineSecret>,
    ) -> Result<AreaKeys, Failure> {
        let from = self.parties_of(disk);
        let (disk, mac) = (self.key(disk, machine)?, self.key(mac, machine)?);
        Ok(AreaKeys { disk: DiskKey::new(disk.as_bytes()), mac: MacKey::new(mac.as_bytes()), from })
    }

    fn parties_of(&self, purpose: Purpose) -> String {
        let parties = party_halves(&self.manifest.split_key, purpose).map(Name::as_str);
        parties.collect::<Vec<_>>().join(" and ")
    }

    fn key(
        &self,
        purpose: Purpose,
        machine: Option<&MachineSecret>,
    ) -> Result<CombinedKey, Failure> {
        // A half of one stage is not a half of the other stage's keys: joined all the same, it
        // would silently make a wrong key.
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
}

/// What a key holder remembers of p5, and what it says of the third factor.
fn recall<'a>(name: &'a Name, session: &dyn Attested) -> Result<Remembered<'a>, Failure> {
    let state = session.seal_state().map_err(|e| failure_at(Code::SealMemory, name, &e))?;
    let seal = match &state {
        None => SealMemory::NotKept,
        Some(SealState { header_sha256: None, .. }) => SealMemory::Fresh,
        Some(SealState { header_sha256, .. }) => SealMemory::Sealed(*header_sha256),
    };
    let SealState { allowed, bound, share, .. } = state.unwrap_or_default();
    // It learns of a header and of its share at once. Believed, this could bind a p5 that is not
    // made yet.
    if bound && !matches!(seal, SealMemory::Sealed(_)) {
        return Err(Failure::new(
            Code::SealMemory,
            format_args!("{name}: a share, and no header that needs it"),
        ));
    }
    Ok(Remembered { name, seal, third_factor: ThirdFactor { allowed, bound, share } })
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

fn failure_at(code: Code, name: &Name, error: &ReleaseError) -> Failure {
    Failure::new(code, format_args!("{name}: {error}"))
}

#[cfg(test)]
mod tests;
