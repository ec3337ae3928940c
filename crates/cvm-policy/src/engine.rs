//! One policy, compiled once and asked often.

use std::{num::NonZeroU32, time::Duration};

use cvm_base::{Bytes32, sha256};
use regorus::{Engine, utils::limits::ExecutionTimerConfig};
use serde_json::Value;

use crate::{builtins, calls, error::PolicyError};

/// The longest policy that is read.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;
/// The longest input, and the longest data, as JSON.
pub const MAX_INPUT_BYTES: usize = 4 * 1024 * 1024;
/// How long one question may take. Generated policies take about a millisecond.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Room for [`calls::MAX_RULES`] rules that each lead to the next; memory is taken as it is used.
const STACK: usize = 256 * 1024 * 1024;
/// Work units between two looks at the clock.
const CHECK_EVERY: NonZeroU32 = NonZeroU32::new(16).unwrap();
/// The most reasons that a decision lists.
const MAX_REASONS: usize = 64;
/// The most characters of a reason.
const MAX_REASON: usize = 1000;

/// Rules in `package policy`: `allow` decides; `deny`, if there is such a rule, refuses with
/// reasons; and `accepted_not_checked` lists the checks that evidence may have gone without,
/// `checked` those that the policy made itself.
#[derive(Debug, Clone)]
pub struct Policy {
    name: String,
    engine: Engine,
    digest: Bytes32,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether `allow` is true, `deny` is empty, and every check that was left out is accepted by
    /// name.
    pub allowed: bool,
    /// Why not; may be empty where the policy has no `deny` rule.
    pub reasons: Vec<String>,
    /// Checks that evidence went without, by name; all of them accepted if `allowed`.
    pub not_checked: Vec<String>,
}

impl Policy {
    /// Compiles a policy in Rego v1, or in v0 as older policies are. Messages contain `name`.
    ///
    /// # Errors
    /// [`PolicyError`]; also for a policy that allows an empty input, which would let everybody in.
    pub fn compile(name: &str, text: &[u8]) -> Result<Self, PolicyError> {
        bound("the policy", text.len(), MAX_POLICY_BYTES)?;
        let syntax = |(line, problem)| PolicyError::Syntax { name: name.to_owned(), line, problem };
        let plain = cvm_base::unmarked(text).map_err(|utf16| syntax((0, utf16.to_string())))?;
        let source =
            str::from_utf8(plain).map_err(|_| syntax((0, "it is not UTF-8 text".into())))?;
        calls::check_nesting(source).map_err(syntax)?;
        // `if` without an import is a word of v1 only; read as v0, the mistake would be named at
        // another place.
        let v1_only = source.contains(" if ") && !source.contains("future.keywords");
        let read = || {
            load(name, source, false).or_else(|v1| {
                if v1_only { Err(v1) } else { load(name, source, true).map_err(|_| v1) }
            })
        };
        let (engine, package) =
            apart(read).unwrap_or_else(|problem| Err((0, problem))).map_err(syntax)?;
        if package != "data.policy" {
            let found = package.strip_prefix("data.").unwrap_or(&package).to_owned();
            return Err(PolicyError::Package { name: name.to_owned(), found });
        }
        let policy = Self { name: name.to_owned(), engine, digest: sha256(text) };
        // A policy that cannot decide even this question fails here, and not at the next boot.
        if policy
            .decide(&Value::Object(Default::default()), &Value::Object(Default::default()))?
            .allowed
        {
            return Err(PolicyError::AllowsNothing { name: name.to_owned() });
        }
        Ok(policy)
    }

    /// The name that it was compiled under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> Bytes32 {
        self.digest
    }

    /// Asks the policy. `input` is laid out like Trustee's EAR; `data` holds reference values and
    /// the request.
    ///
    /// # Errors
    /// [`PolicyError`] when the policy cannot decide. That is a refusal as well.
    pub fn decide(&self, input: &Value, data: &Value) -> Result<Decision, PolicyError> {
        let failed =
            |problem| PolicyError::Evaluation { name: self.name.clone(), line: 0, problem };
        apart(|| self.ask(input, data)).unwrap_or_else(|problem| Err(failed(problem)))
    }

    /// The words of a rule that is a set or an array of strings; none if the rule is missing.
    ///
    /// # Errors
    /// As [`Self::decide`].
    pub fn words(
        &self,
        rule: &str,
        input: &Value,
        data: &Value,
    ) -> Result<Vec<String>, PolicyError> {
        let failed =
            |problem| PolicyError::Evaluation { name: self.name.clone(), line: 0, problem };
        let ask = || Ok(strings(&self.query(&mut self.asked(input, data)?, rule)?));
        apart(ask).unwrap_or_else(|problem| Err(failed(problem)))
    }

    fn asked(&self, input: &Value, data: &Value) -> Result<Engine, PolicyError> {
        let mut engine = self.engine.clone();
        engine.add_data(self.value("the data", data)?).map_err(|e| self.failed(&e.to_string()))?;
        engine.set_input(self.value("the input", input)?);
        Ok(engine)
    }

    fn ask(&self, input: &Value, data: &Value) -> Result<Decision, PolicyError> {
        let mut engine = self.asked(input, data)?;
        let mut reasons = strings(&self.query(&mut engine, "deny")?);
        let accepted = strings(&self.query(&mut engine, "accepted_not_checked")?);
        let checked = strings(&self.query(&mut engine, "checked")?);
        let mut not_checked = not_checked(input);
        not_checked.retain(|check| !checked.contains(check));
        for check in not_checked.iter().filter(|check| !accepted.contains(check)) {
            reasons.push(format!(
                "{check} was not checked, and accepted_not_checked does not list it"
            ));
        }
        reasons.iter_mut().for_each(|reason| *reason = reason.chars().take(MAX_REASON).collect());
        reasons.sort();
        reasons.dedup();
        // Only the boolean true allows; a missing rule does not.
        let allow = self.query(&mut engine, "allow")? == regorus::Value::from(true);
        let allowed = allow && reasons.is_empty();
        reasons.truncate(MAX_REASONS);
        Ok(Decision { allowed, reasons, not_checked })
    }

    /// A rule's value; undefined if the rule is missing or does not apply.
    fn query(&self, engine: &mut Engine, rule: &str) -> Result<regorus::Value, PolicyError> {
        let results = engine
            .eval_query(format!("data.policy.{rule}"), false)
            .map_err(|e| self.failed(&e.to_string()))?;
        let value = results.result.first().and_then(|result| result.expressions.first());
        Ok(value.map_or(regorus::Value::Undefined, |expression| expression.value.clone()))
    }

    fn value(&self, what: &'static str, json: &Value) -> Result<regorus::Value, PolicyError> {
        let text = json.to_string();
        bound(what, text.len(), MAX_INPUT_BYTES)?;
        regorus::Value::from_json_str(&text).map_err(|e| self.failed(&e.to_string()))
    }

    fn failed(&self, message: &str) -> PolicyError {
        if message.contains("execution exceeded time limit") {
            let milliseconds = MAX_TIME.as_millis().try_into().unwrap_or(u64::MAX);
            return PolicyError::Stopped { name: self.name.clone(), milliseconds };
        }
        let (line, problem) = located(&self.name, message);
        PolicyError::Evaluation { name: self.name.clone(), line, problem }
    }
}

/// Runs `work` on a thread of its own: rules that lead to rules need stack, and a panic of the
/// engine counts as a refusal.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| format!("no thread to evaluate it in: {e}"))?;
        thread.join().map_err(|_| "the engine gave up".into())
    })
}

fn bound(what: &'static str, bytes: usize, allowed: usize) -> Result<(), PolicyError> {
    if bytes > allowed { Err(PolicyError::TooLarge { what, bytes, allowed }) } else { Ok(()) }
}

fn load(name: &str, source: &str, v0: bool) -> Result<(Engine, String), (u32, String)> {
    let mut engine = Engine::new();
    engine.set_rego_v0(v0);
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: MAX_TIME,
        check_interval: CHECK_EVERY,
    });
    let fail = |message: String| located(name, &message);
    builtins::install(&mut engine).map_err(fail)?;
    let package =
        engine.add_policy(name.to_owned(), source.to_owned()).map_err(|e| fail(e.to_string()))?;
    calls::check(&mut engine)?;
    Ok((engine, package))
}

/// Strings of a set or an array. Any other element is shown as JSON, so that no reason is lost.
fn strings(value: &regorus::Value) -> Vec<String> {
    let text = |value: &regorus::Value| {
        value.as_string().map(|text| text.to_string()).unwrap_or_else(|_| value.to_string())
    };
    if let Ok(set) = value.as_set() {
        return set.iter().map(text).collect();
    }
    value.as_array().map(|array| array.iter().map(text).collect()).unwrap_or_default()
}

/// Names in every `not_checked` list under any attester's annotated evidence, however deep.
fn not_checked(input: &Value) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::Array(entries) if name == "not_checked" => {
                            // An entry without a name is still a check that was left out.
                            let named = |entry: &Value| {
                                entry.get("check").and_then(Value::as_str).map(str::to_owned)
                            };
                            found.extend(
                                entries
                                    .iter()
                                    .map(|entry| named(entry).unwrap_or_else(|| entry.to_string())),
                            );
                        }
                        member => walk(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(submods) = input.get("submods") {
        walk(submods, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// regorus writes `--> NAME:LINE:COLUMN`, the line with a mark under it, and `error: …`.
fn located(name: &str, message: &str) -> (u32, String) {
    let line = message
        .split_once(&format!("--> {name}:"))
        .and_then(|(_, at)| at.split_once(':'))
        .and_then(|(line, _)| line.parse().ok())
        .unwrap_or(0);
    let problem = message.rsplit_once("error: ").map_or(message, |(_, problem)| problem);
    (line, problem.trim().chars().take(300).collect())
}
