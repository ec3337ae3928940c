//! The agent: its memory, its state, and what it answers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cvm_base::{Bytes, Bytes32, Explain, sha256};
use cvm_evidence::trustee::NVIDIA;
use cvm_policy::Policy;
use serde_json::{Value, json};

use crate::{
    attester::{Attester, GpuAttester, OpenDevice},
    image::OwnImage,
    journal::{Journal, JournalEntry},
    memory::{CHALLENGE_LIFETIME, Memory},
    request::{AuditRequest, LocalRequest},
    turns::{Rank, Turns},
};
use cvm_peer::{
    clock,
    error::AgentRefusal,
    token::{Statement, Token, Use},
    verify::{Clocks, ExpectedToken, Peer, Verdict, verify},
};

/// The clock; tests set another.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What the last self-verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    Healthy { since: u64 },
    Failing { reason: String },
}

/// One agent.
pub struct Agent {
    pub(crate) own: OwnImage,
    attester: Box<dyn Attester>,
    /// Where the image requires GPUs.
    gpus: Option<GpuAttester>,
    /// What signs bare reports.
    pub(crate) device: OpenDevice,
    /// Who may ask them.
    turns: Turns,
    journal: Journal,
    pub(crate) clock: Clock,
    memory: Mutex<Memory>,
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Not yet verified: [`Self::verify_self`] comes first.
    pub fn new(own: OwnImage, attester: Box<dyn Attester>, journal: Journal, clock: Clock) -> Self {
        let memory = Mutex::new(Memory::new(clock()));
        let device: OpenDevice = Box::new(cvm_collect::open_devices);
        let (turns, state) = (Turns::default(), Mutex::new(State::Starting));
        Self { own, attester, gpus: None, device, turns, journal, clock, memory, state }
    }

    /// With GPUs, which every token then shows.
    #[must_use]
    pub fn with_gpus(self, gpus: GpuAttester) -> Self {
        Self { gpus: Some(gpus), ..self }
    }

    /// With another device for bare reports than this machine's own.
    #[must_use]
    pub fn with_device(self, device: OpenDevice) -> Self {
        Self { device, ..self }
    }

    /// What it knows of its own image.
    pub fn own_image(&self) -> &OwnImage {
        &self.own
    }

    /// Answers the local socket.
    ///
    /// # Errors
    /// [`AgentRefusal`].
    pub fn handle(&self, request: LocalRequest) -> Result<Value, AgentRefusal> {
        match request {
            LocalRequest::Status { .. } => Ok(self.status()),
            LocalRequest::Challenge { peer, .. } => {
                self.check_healthy()?;
                let challenge = lock(&self.memory).issue(&peer, Instant::now())?;
                Ok(json!({ "challenge": challenge, "lifetime_s": CHALLENGE_LIFETIME.as_secs() }))
            }
            LocalRequest::Generate { challenge, tls_cert_sha256, .. } => {
                self.check_healthy()?;
                let made = self.token(Use::Peer, challenge, Some(tls_cert_sha256), None);
                self.write("generated", None, "issued", made.as_ref().err());
                let (token, statement) = made?;
                let (issued_at, expires_at) =
                    (clock::rfc3339(statement.issued_at), clock::rfc3339(statement.expires_at));
                Ok(json!({ "token": token, "issued_at": issued_at, "expires_at": expires_at }))
            }
            LocalRequest::Verify { token, peer, challenge, .. } => {
                self.check_healthy()?;
                let verdict = self.verify_peer(&token, peer.as_ref(), challenge.as_ref());
                let name = peer.map(|peer| peer.name.to_string());
                let name =
                    name.or_else(|| verdict.as_ref().ok().map(|verdict| verdict.site.to_string()));
                self.write("verified", name, "accepted", verdict.as_ref().err());
                let verdict = verdict?;
                Ok(json!({
                    "verified": true,
                    "claims": verdict.claims,
                    "not_checked": verdict.not_checked,
                }))
            }
            LocalRequest::Report { since, until, .. } => {
                let report = self.report(&since, &until)?;
                Ok(json!({ "entries": report.entries, "more": report.more }))
            }
            LocalRequest::SnpReport { report_data, .. } => {
                self.check_healthy()?;
                let made =
                    self.turns.take(Rank::Peer).and_then(|_turn| self.bare_report(&report_data.0));
                self.write("generated", None, "issued a bare SEV-SNP report", made.as_ref().err());
                made
            }
            LocalRequest::SnpVerify { report, certificates, .. } => {
                self.check_healthy()?;
                let verdict = self.verify_bare_report(&report.0, &certificates);
                self.write(
                    "verified",
                    None,
                    "accepted a bare SEV-SNP report",
                    verdict.as_ref().err(),
                );
                verdict
            }
        }
    }

    /// Answers the node's port: fresh evidence over the asker's nonce. It answers in any state,
    /// because the evidence speaks for itself.
    ///
    /// # Errors
    /// [`AgentRefusal`].
    pub fn handle_audit(&self, request: AuditRequest, asker: &str) -> Result<Value, AgentRefusal> {
        let (nonce, report) = match request {
            AuditRequest::Evidence { nonce, .. } => (nonce, None),
            AuditRequest::Report { since, until, nonce, .. } => {
                // The evidence is bound to this exact text.
                let report =
                    serde_json::to_string(&self.report(&since, &until)?).unwrap_or_default();
                (nonce, Some(report))
            }
        };
        let digest = report.as_ref().map(|report| sha256(report.as_bytes()));
        let made = self.token(Use::Audit, Some(nonce), None, digest);
        self.write("audit", Some(asker.into()), "issued", made.as_ref().err());
        let mut answer = json!({ "token": made?.0 });
        if let Some(report) = report {
            answer["report"] = json!(report);
        }
        Ok(answer)
    }

    /// Fresh evidence of this machine through the same verifier as a peer's, against the self
    /// policy. A machine that fails once stays failed. A device that gives no evidence is asked
    /// again after each of `pauses`.
    ///
    /// # Errors
    /// [`AgentRefusal`]: this machine is not what was built, or gives no evidence.
    pub fn verify_self(&self, pauses: &[Duration]) -> Result<(), AgentRefusal> {
        let mut verdict = self.check_self();
        for pause in pauses {
            if !matches!(verdict, Err(AgentRefusal::NoEvidence { .. })) {
                break;
            }
            std::thread::sleep(*pause);
            verdict = self.check_self();
        }
        self.write("self", None, "accepted", verdict.as_ref().err());
        let mut state = lock(&self.state);
        match &verdict {
            Ok(_) if matches!(*state, State::Failing { .. }) => {}
            Ok(_) => *state = State::Healthy { since: (self.clock)() },
            Err(refusal) => {
                *state = State::Failing { reason: format!("{}: {refusal}", refusal.code()) }
            }
        }
        verdict.map(drop)
    }

    fn check_self(&self) -> Result<Verdict, AgentRefusal> {
        let challenge = Bytes::<32>(random()?);
        let (text, _) = self.token(Use::Own, Some(challenge), None, None)?;
        let expected = ExpectedToken {
            use_: Use::Own,
            peer: None,
            challenge: Some(&challenge),
            report_sha256: None,
        };
        self.verify(&Token::parse(&text)?, &expected, &self.own.self_policy)
    }

    fn verify(
        &self,
        token: &Token,
        expected: &ExpectedToken<'_>,
        policy: &Policy,
    ) -> Result<Verdict, AgentRefusal> {
        verify(token, expected, &self.own.trust, policy, self.own.config.clocks, (self.clock)())
    }

    fn verify_peer(
        &self,
        token: &str,
        peer: Option<&Peer>,
        challenge: Option<&Bytes32>,
    ) -> Result<Verdict, AgentRefusal> {
        let token = Token::parse(token)?;
        // Taken before the work, so that of two requests with one challenge only one can succeed.
        let taken = match (challenge, peer) {
            (Some(challenge), Some(peer)) => {
                Some(lock(&self.memory).take(challenge, &peer.name, Instant::now())?)
            }
            (Some(_), None) => return Err(AgentRefusal::NoChallenge),
            (None, _) => None,
        };
        let expected = ExpectedToken { use_: Use::Peer, peer, challenge, report_sha256: None };
        let verdict = self.verify(&token, &expected, &self.own.cross_policy).and_then(|verdict| {
            if challenge.is_none() {
                self.see(&token.statement)?;
            }
            Ok(verdict)
        });
        if let (Err(refusal), Some(taken)) = (&verdict, taken)
            && refusal.retry()
        {
            lock(&self.memory).put_back(taken);
        }
        verdict
    }

    fn see(&self, statement: &Statement) -> Result<(), AgentRefusal> {
        let Clocks { leeway_s, .. } = self.own.config.clocks;
        let until = statement.expires_at.saturating_add(leeway_s);
        lock(&self.memory).see(statement.digest(), statement.issued_at, until, (self.clock)())
    }

    fn token(
        &self,
        use_: Use,
        challenge: Option<Bytes32>,
        tls_cert_sha256: Option<Bytes32>,
        report_sha256: Option<Bytes32>,
    ) -> Result<(String, Statement), AgentRefusal> {
        let _turn = self.turns.take(Rank::of(use_))?;
        let manifest = &self.own.image.manifest;
        let issued_at = (self.clock)();
        let mut statement = Statement {
            additional_evidence_sha256: None,
            challenge,
            expires_at: issued_at.saturating_add(self.own.config.token_lifetime_s),
            id: Bytes(random()?),
            image_id: manifest.image_id,
            issued_at,
            report_sha256,
            role: manifest.role,
            site: manifest.site.clone(),
            tls_cert_sha256,
            transcript: self.own.trust.transcript(),
            use_,
        };
        let gpus =
            self.gpus.as_ref().map(|gpus| gpus.additional_evidence(&statement.device_digest()));
        let additional_evidence = gpus.transpose()?;
        statement.additional_evidence_sha256 =
            additional_evidence.as_ref().map(|text| sha256(text.as_bytes()));
        let token = Token {
            evidence: self.attester.evidence(&statement.digest())?,
            statement,
            additional_evidence,
            documents: self.own.documents.clone(),
            ak_certificates: self.own.ak_certificates.clone(),
        };
        Ok((token.text()?, token.statement))
    }

    fn status(&self) -> Value {
        let (state, reason, since) = match lock(&self.state).clone() {
            State::Starting => ("starting", String::new(), None),
            State::Healthy { since } => ("healthy", String::new(), Some(clock::rfc3339(since))),
            State::Failing { reason } => ("failing", reason, None),
        };
        let (manifest, config) = (&self.own.image.manifest, &self.own.config);
        let kinds: Vec<_> =
            [self.attester.kind()].into_iter().chain(self.gpus.as_ref().map(|_| NVIDIA)).collect();
        json!({
            "site": manifest.site, "role": manifest.role,
            "state": state, "reason": reason, "self_verified_at": since,
            "kinds": kinds, "leeway_s": config.clocks.leeway_s,
            "token_lifetime_s": config.token_lifetime_s,
        })
    }

    fn check_healthy(&self) -> Result<(), AgentRefusal> {
        match *lock(&self.state) {
            State::Healthy { .. } => Ok(()),
            State::Starting => Err(AgentRefusal::Starting),
            State::Failing { .. } => Err(AgentRefusal::Failing),
        }
    }

    fn report(
        &self,
        since: &str,
        until: &str,
    ) -> Result<crate::journal::JournalReport, AgentRefusal> {
        let time = |member: &str, text: &str| {
            let problem = format!("{member} is not a time: write 2027-01-15T08:05:00Z");
            clock::parse(text).ok_or(AgentRefusal::Request { problem })
        };
        self.journal.report(time("since", since)?, time("until", until)?)
    }

    fn write(
        &self,
        direction: &str,
        peer: Option<String>,
        good: &str,
        refusal: Option<&AgentRefusal>,
    ) {
        let mut entry = JournalEntry::new(
            (self.clock)(),
            direction,
            peer,
            if refusal.is_none() { good } else { "refused" },
        );
        entry.code = refusal.map(|refusal| refusal.code().to_owned());
        entry.reason = refusal.map(ToString::to_string);
        self.journal.append(&entry);
    }
}

fn random<const N: usize>() -> Result<[u8; N], AgentRefusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| AgentRefusal::NoEvidence { problem: format!("no random bytes: {e}") })?;
    Ok(bytes)
}
