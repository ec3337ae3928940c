//! Every shipped policy, with each set, list and member that it reads emptied: a rule over nothing
//! must not allow.

use cvm_base::Bytes;
use cvm_policy::{Policy, new_policies};
use serde_json::{Value, json};

use crate::written::{IMAGE, gpu, input, machines, reference};

const TEE: &str = include_str!("../../../../keys/policies/tee.rego");
const TPM: &str = include_str!("../../../../keys/policies/tpm.rego");
const OWN: &str = include_str!("../../../cvm-peer/src/policies/self.rego");
const RTMR3: &str = "/submods/cpu0/ear.veraison.annotated-evidence/tdx/quote/body/rtmr_3";
const CROSS: &str = include_str!("../../../cvm-peer/src/policies/cross.rego");

/// A question that a policy answers with yes.
struct Case {
    policy: String,
    text: String,
    kind: &'static str,
    late: bool,
    input: Value,
    data: Value,
}

impl Case {
    fn allowed(&self, text: &str, input: &Value, data: &Value) -> bool {
        Policy::compile(&self.policy, text.as_bytes())
            .unwrap()
            .decide(input, data)
            .is_ok_and(|decision| decision.allowed)
    }

    fn name(&self) -> String {
        format!("{} {}{}", self.policy, self.kind, if self.late { " late" } else { "" })
    }
}

/// What claims of our own verifier have beside those that generated policies read.
fn whole(kind: &str, cpu: &Value, handed_off: bool) -> Value {
    let mut cpu = cpu.clone();
    cpu["trust"] = json!("tee");
    cpu["not_checked"] = json!([{ "check": "host-data", "reason": "nobody expects any" }]);
    if kind.contains("tdx") {
        cpu["td_attributes"]["migratable"] = json!(false);
    }
    if kind == "tpm" {
        let pcrs = reference().tpm.unwrap().pcrs;
        cpu["pcrs"] =
            json!(if handed_off { cvm_evidence::platform::after_handoff(&pcrs) } else { pcrs });
        (cpu["trust"], cpu["handed_off"]) = (json!("untrusted-host"), json!(handed_off));
        (cpu["endorsements"], cpu["not_checked"]) = (json!([{ "party": "alice" }]), json!([]));
    }
    cpu["phase"] = json!(if kind == "snp" { "not-shown" } else { "after-handoff" });
    cpu
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut measured = gpu();
    measured["x-nvidia-gpu-mode"] = json!("SPT");
    measured["not_checked"] = json!([{ "check": "ocsp", "reason": "nobody was asked" }]);
    for late in [false, true] {
        let stage = if late { "running-half" } else { "half" };
        for (kind, cpu) in machines(!late) {
            let asked =
                json!({ "plugin": "resource", "resource-path": ["flare-cvm", stage, IMAGE] });
            let whole = whole(kind, &cpu, late);
            let input = input(kind, &whole, late.then(|| measured.clone()));
            let mut add = |policy: &str, text: &str, data: Value| {
                let (policy, text, mut input) = (policy.to_owned(), text.to_owned(), input.clone());
                // Of the running system this policy knows the register after the handoff.
                if kind == "tdx" && policy == "boot.rego" && late {
                    let after = cvm_evidence::rtmr::extend(
                        &Bytes([0; 48]),
                        &cvm_evidence::td_handoff_digest(),
                    );
                    *input.pointer_mut(RTMR3).unwrap() = json!(after);
                }
                cases.push(Case { policy, text, kind, late, input, data });
            };
            let mut data = asked.clone();
            data["reference"] = json!(reference());
            // What is released later is held against the values of that phase.
            if late {
                for platform in data["reference"]["azure"].as_array_mut().unwrap() {
                    platform["pcrs"] =
                        json!(cvm_evidence::platform::after_handoff(&reference().azure[0].pcrs));
                }
                let pcrs = cvm_evidence::platform::after_handoff(&reference().tpm.unwrap().pcrs);
                data["reference"]["tpm"]["pcrs"] = json!(pcrs);
            }
            data["reference"]["tpm"]["explain"] = json!([]);
            match kind {
                "tpm" => {
                    let required = r#"required := {"4", "7", "9", "11", "12", "13"}"#;
                    let text = TPM.replace("@EK_ROOT_SHA256@", &"ee".repeat(32));
                    let shorter = text.replace(required, r#"required := {"4", "7", "11", "12"}"#);
                    assert_ne!(text, shorter);
                    add("tpm.rego", &shorter, data);
                }
                _ => add("tee.rego", TEE, data),
            }
            if late && !kind.starts_with("az-") {
                add("agent's cross.rego", CROSS, json!({}));
                add("agent's self.rego", OWN, json!({}));
            }
            for (name, text) in new_policies(&reference()).unwrap() {
                if late || name == "boot.rego" {
                    let list = r#"accepted_not_checked := {"host-data", "ocsp"}"#;
                    add(name, &text.replace("accepted_not_checked := set()", list), asked.clone());
                }
            }
        }
    }
    cases
}

/// Every member, element and leaf emptied, and taken away.
fn emptied(value: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        let mut member = |name: &str, value: &Value| {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            found.push(at.clone());
            walk(value, &at, found);
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| member(name, value)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, value)| member(&n.to_string(), value))
            }
            _ => {}
        }
    }
    let mut paths = Vec::new();
    walk(value, "", &mut paths);
    let mut all = Vec::new();
    for at in paths {
        let nothing = match value.pointer(&at).unwrap() {
            Value::Object(members) if !members.is_empty() => Some(json!({})),
            Value::Array(items) if !items.is_empty() => Some(json!([])),
            _ => None,
        };
        if let Some(nothing) = nothing {
            let mut empty = value.clone();
            *empty.pointer_mut(&at).unwrap() = nothing;
            all.push((format!("{at} empty"), empty));
        }
        let mut absent = value.clone();
        let (parent, name) = at.rsplit_once('/').unwrap();
        match absent.pointer_mut(parent).unwrap() {
            Value::Object(members) => {
                drop(members.remove(&name.replace("~1", "/").replace("~0", "~")))
            }
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            _ => unreachable!(),
        }
        all.push((format!("{at} absent"), absent));
    }
    all
}

/// The claims that a policy decides by, by the end of their path.
fn read(case: &Case) -> Vec<&'static str> {
    const SNP: [&str; 13] = [
        "/policy_debug_allowed",
        "/policy_migrate_ma",
        "/vmpl",
        "/measurement",
        "/product",
        "/reported_tcb_bootloader",
        "/reported_tcb_tee",
        "/reported_tcb_snp",
        "/reported_tcb_microcode",
        "/launch_tcb/bootloader",
        "/launch_tcb/tee",
        "/launch_tcb/snp",
        "/launch_tcb/microcode",
    ];
    const TDX: [&str; 4] = ["/td_attributes/debug", "/tcb_status", "/advisory_ids", "/mr_td"];
    const RTMRS: [&str; 4] = ["/rtmr_0", "/rtmr_1", "/rtmr_2", "/rtmr_3"];
    const STATUS: [&str; 2] = ["/tcb_status", "/advisory_ids"];
    const GPU: [&str; 4] =
        ["/measres", "/secboot", "/dbgstat", "/x-nvidia-gpu-attestation-report-nonce-match"];
    let registers = || ["/tpm/pcr04", "/tpm/pcr11"];
    let gpu = |more: &[&'static str]| if case.late { [&GPU[..], more].concat() } else { vec![] };
    let (agents, cross) = (case.policy.starts_with("agent's"), case.policy == "agent's cross.rego");
    if agents {
        // Before it is asked, the agent has compared what was measured.
        let gpus = if cross { gpu(&["/x-nvidia-gpu-mode"]) } else { vec![] };
        let own: &[&str] = match case.kind {
            "tpm" if cross => &["/phase", "/endorsements"],
            "tpm" => &["/phase"],
            "tdx" if cross => &["/phase", "/trust", "/tcb_status", "/advisory_ids"],
            _ => &["/phase", "/trust"],
        };
        return [own, &gpus].concat();
    }
    let cpu = match case.kind {
        "tpm" if case.policy == "tpm.rego" => {
            vec![
                "/ek_root_sha256",
                "/trust",
                "/handed_off",
                "/pcrs/4",
                "/pcrs/7",
                "/pcrs/11",
                "/pcrs/12",
            ]
        }
        "tpm" => vec!["/ek_root_sha256", "/trust", "/pcr04", "/pcr07", "/pcr11", "/pcr12"],
        "snp" => [&SNP[..], &["/stepping"]].concat(),
        "tdx" => [&TDX[..], &RTMRS, &STATUS].concat(),
        "az-snp-vtpm" => [&SNP[..], &registers()].concat(),
        _ => [&TDX[..], &STATUS, &registers()].concat(),
    };
    let (more, gpus): (&[&str], _) = match case.policy.as_str() {
        "tee.rego" if case.kind.contains("tdx") => {
            (&["/trust", "/td_attributes/migratable"], gpu(&["/x-nvidia-gpu-mode"]))
        }
        "tee.rego" => (&["/trust"], gpu(&["/x-nvidia-gpu-mode"])),
        "tpm.rego" => (&[], gpu(&["/x-nvidia-gpu-mode"])),
        _ => (&[], gpu(&["/hwmodel", "/x-nvidia-gpu-driver-version"])),
    };
    [&cpu[..], more, &gpus].concat()
}

#[test]
fn a_policy_that_is_shown_nothing_says_no() {
    for case in cases() {
        let policy = Policy::compile(&case.policy, case.text.as_bytes()).unwrap();
        let decision = policy.decide(&case.input, &case.data).unwrap();
        assert!(decision.allowed, "{}: {:?}", case.name(), decision.reasons);
        let all = emptied(&case.input);
        let ends = read(&case);
        let path = |what: &str| what.rsplit_once(' ').unwrap().0.to_owned();
        let decisive: Vec<String> = all
            .iter()
            .map(|(what, _)| path(what))
            .filter(|at| ends.iter().any(|end| at.ends_with(end)))
            .collect();
        for end in &ends {
            assert!(decisive.iter().any(|at| at.ends_with(end)), "{}: no claim {end}", case.name());
        }
        for (what, input) in &all {
            let at = path(what);
            // The agent counts the GPUs itself.
            let counted = case.policy.starts_with("agent's") && what.ends_with("/gpu0 absent");
            let read =
                decisive.iter().any(|claim| *claim == at || claim.starts_with(&format!("{at}/")));
            if read && !counted {
                assert!(
                    !policy.decide(input, &case.data).unwrap().allowed,
                    "{}: {what}",
                    case.name()
                );
            }
        }
    }
}

/// The reference values of the kind that is asked about; those of others are not read.
#[test]
fn a_policy_that_has_nothing_to_compare_with_says_no() {
    for case in cases().iter().filter(|case| case.data.get("reference").is_some()) {
        let policy = Policy::compile(&case.policy, case.text.as_bytes()).unwrap();
        let member = match case.kind {
            "tpm" => "/reference/tpm",
            "snp" => "/reference/snp",
            "tdx" => "/reference/tdx",
            _ => "/reference/azure",
        };
        // Which entry of several is this machine's, and what it says for people.
        let own = |at: &str| match case.kind {
            "tpm" => !at.contains("/explain") && !at.contains("/bank"),
            "az-tdx-vtpm" => !at.starts_with("/reference/azure/0"),
            _ => !at.starts_with(&format!("{member}/1")),
        };
        let read = |at: &str| {
            at.starts_with("/reference ")
                || at.starts_with(member) && own(at) && !at.contains("/platform")
        };
        for (at, data) in emptied(&case.data).iter().filter(|(at, _)| read(at)) {
            assert!(!policy.decide(&case.input, data).unwrap().allowed, "{}: {at}", case.name());
        }
    }
}

/// Where a rule at the top begins and ends that is a set, a list or a map with something in it.
fn literals(text: &str) -> Vec<(String, std::ops::Range<usize>, &'static str)> {
    let mut found = Vec::new();
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let start = line_start;
        line_start += line.len();
        let Some((name, right)) = line.split_once(" := ") else { continue };
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let Some(open) = right.chars().next().filter(|c| plain && matches!(c, '{' | '[')) else {
            continue;
        };
        let from = start + name.len() + 4;
        let (mut depth, mut quoted, mut escaped) = (0, false, false);
        let end = text[from..].char_indices().find_map(|(at, c)| {
            match c {
                _ if std::mem::take(&mut escaped) => {}
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '{' | '[' if !quoted => depth += 1,
                '}' | ']' if !quoted => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(from + at + 1)
        });
        let body = &text[from..end.unwrap()];
        let empty = match open {
            '[' => "[]",
            _ if body.lines().next().unwrap().contains(": ")
                || body.lines().nth(1).is_some_and(|l| l.contains(": ")) =>
            {
                "{}"
            }
            _ => "set()",
        };
        if body != "{}" && body != "[]" {
            found.push((name.to_owned(), from..end.unwrap(), empty));
        }
    }
    found
}

#[test]
fn a_policy_whose_own_list_is_emptied_says_no() {
    let cases = cases();
    let mut policies: Vec<&str> = cases.iter().map(|case| case.policy.as_str()).collect();
    policies.dedup();
    policies.sort_unstable();
    policies.dedup();
    for policy in policies {
        let asked: Vec<_> = cases.iter().filter(|case| case.policy == policy).collect();
        let found = literals(&asked[0].text);
        assert!(!found.is_empty(), "{policy}");
        for (name, range, empty) in found {
            // Without any, NVIDIA's own reference values are all that is asked for.
            if name == "nvidia" {
                continue;
            }
            let text =
                format!("{}{empty}{}", &asked[0].text[..range.start], &asked[0].text[range.end..]);
            let refused = asked.iter().any(|case| !case.allowed(&text, &case.input, &case.data));
            assert!(refused, "{policy}: {name} is empty, and nothing is refused");
        }
    }
}

/// No owner, and no reference values, asked for any firmware: nothing is below it.
#[test]
fn attack_tcb_0_0_0_0_under_the_shipped_policy() {
    let snp =
        cases().into_iter().find(|case| case.policy == "tee.rego" && case.kind == "snp").unwrap();
    let zero = json!({ "bootloader": 0, "tee": 0, "snp": 0, "microcode": 0 });
    let mut zeros = snp.input.clone();
    let claims = &mut zeros["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"];
    for part in ["bootloader", "tee", "snp", "microcode"] {
        claims[format!("reported_tcb_{part}")] = json!(0);
    }
    claims["launch_tcb"] = zero.clone();
    for floor in [
        json!(null),
        json!({}),
        zero,
        json!({ "Genoa-B1": {"bootloader": 0, "tee": 0, "snp": 0, "microcode": 0} }),
    ] {
        let mut data = snp.data.clone();
        data["reference"]["snp"][0]["tcb_floor"] = floor.clone();
        for input in [&zeros, &snp.input] {
            assert!(!snp.allowed(&snp.text, input, &data), "{floor}");
        }
        data["reference"]["snp"][0].as_object_mut().unwrap().remove("tcb_floor");
        assert!(!snp.allowed(&snp.text, &zeros, &data));
    }
    assert!(!snp.allowed(&snp.text, &zeros, &snp.data));
}
