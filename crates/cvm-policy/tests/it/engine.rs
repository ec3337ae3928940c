//! One engine: what runs in it unchanged, and what it stops.

use cvm_base::{Explain, sha256};
use cvm_policy::{MAX_INPUT_BYTES, MAX_POLICY_BYTES, Policy, PolicyError};
use serde_json::{Value, json};

fn compile(text: &str) -> Result<Policy, PolicyError> {
    Policy::compile("p.rego", text.as_bytes())
}

fn measured(measurement: &str) -> Value {
    let annotated = json!({"snp": {"measurement": measurement}});
    json!({"submods": {"cpu0": {"ear.veraison.annotated-evidence": annotated}}})
}

#[test]
fn nvflares_published_policy_runs_unchanged() {
    // As NVFLARE's guide writes it: Rego v0, the measurement in base64.
    let text = r#"package policy
default allow = false
allow { input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]["measurement"] == "abc" }"#;
    let policy = compile(text).unwrap();
    assert!(policy.decide(&measured("abc"), &json!({})).unwrap().allowed);
    assert!(!policy.decide(&measured("abd"), &json!({})).unwrap().allowed);
    assert_eq!(policy.digest(), sha256(text.as_bytes()));
}

#[test]
fn checks_that_were_left_out_are_refused_unless_named() {
    let policy = |accepted: &str| {
        let text = format!(
            "package policy\nimport rego.v1\ndefault allow := false\nallow if \
             input.submods\n{accepted}"
        );
        compile(&text).unwrap()
    };
    let mut input = measured("abc");
    let evidence = &mut input["submods"]["cpu0"]["ear.veraison.annotated-evidence"];
    evidence["snp"]["not_checked"] =
        json!([{"check": "certificate-revocation", "reason": "no list given"}]);
    evidence["parts"] =
        json!([{"not_checked": [{"check": "nonce", "reason": "none"}, {"no": "name"}]}]);

    let refused = policy("").decide(&input, &json!({})).unwrap();
    assert!(!refused.allowed);
    assert_eq!(refused.not_checked, ["certificate-revocation", "nonce", r#"{"no":"name"}"#]);
    assert!(
        refused.reasons.iter().any(|r| r.contains("nonce was not checked")),
        "{:?}",
        refused.reasons
    );
    let some = policy(r#"accepted_not_checked := {"nonce"}"#).decide(&input, &json!({})).unwrap();
    assert!(!some.allowed && some.reasons.len() == 2, "{:?}", some.reasons);
    let all = r#"accepted_not_checked := ["nonce", "certificate-revocation", "{\"no\":\"name\"}"]"#;
    assert!(policy(all).decide(&input, &json!({})).unwrap().allowed);
    // Nothing was left out.
    assert!(policy("").decide(&measured("abc"), &json!({})).unwrap().allowed);
}

#[test]
fn a_reason_refuses_and_only_true_allows() {
    let text =
        |allow: &str, deny: &str| format!("package policy\nimport rego.v1\n{allow}\n{deny}\n");
    let allow = "allow if input.submods";
    let decide = |text: &str| compile(text).unwrap().decide(&measured("abc"), &json!({})).unwrap();
    assert!(decide(&text(allow, "")).allowed);
    assert!(decide(&text(allow, "deny contains \"never\" if input.other")).allowed);
    let denied = decide(&text(
        allow,
        "deny contains \"first\" if input.submods\ndeny contains 7 if input.submods",
    ));
    assert_eq!((denied.allowed, denied.reasons), (false, vec!["7".to_owned(), "first".to_owned()]));
    for value in ["1", "\"true\"", "{\"a\": 1}", "[true]"] {
        assert!(
            !decide(&text(&format!("allow := {value} if input.submods"), "")).allowed,
            "{value}"
        );
    }
    assert!(!decide("package policy").allowed, "no rule is a no");
}

#[test]
fn policies_that_cannot_be_used() {
    let syntax = compile("package policy\n\ndefault allow := false\nallow if {\n\tinput.x ==\n}\n")
        .unwrap_err();
    assert!(matches!(syntax, PolicyError::Syntax { line: 5 | 6, .. }), "{syntax:?}");
    assert!(syntax.to_string().starts_with("p.rego line "), "{syntax}");
    let v0 = compile("package policy\nallow {\n input.a == \n}").unwrap_err();
    assert!(matches!(v0, PolicyError::Syntax { line: 1.., .. }), "{v0:?}");
    let package = compile("package other\ndefault allow = false").unwrap_err();
    assert_eq!(package, PolicyError::Package { name: "p.rego".into(), found: "other".into() });
    let everybody = compile("package policy\nallow = true").unwrap_err();
    assert!(matches!(everybody, PolicyError::AllowsNothing { .. }), "{everybody}");
    let conflict = compile("package policy\nallow := a == 1\na := 1\na := 2").unwrap_err();
    assert!(matches!(conflict, PolicyError::Evaluation { .. }), "{conflict:?}");
    assert!(Policy::compile("p.rego", &[0xff]).is_err());
    assert!(compile("").is_err());
    for error in [syntax, package, everybody, conflict] {
        assert!(error.code().starts_with("ATT-38") && !error.help().is_empty());
    }
}

#[test]
fn attack_policies_that_never_end() {
    let head = "package policy\nimport rego.v1\ndefault allow := false\n";
    let error = compile(&format!(
        "{head}allow if {{ some i in numbers.range(1, 99999); \
         some j in numbers.range(1, 99999); i * j == -1 }}"
    ))
    .unwrap_err();
    assert!(matches!(error, PolicyError::Stopped { .. }), "{error}");
    // The same, but only for some input.
    let patient = compile(&format!(
        "{head}allow if {{ input.a; some i in numbers.range(1, 99999); \
         some j in numbers.range(1, 99999); i * j == -1 }}"
    ))
    .unwrap();
    assert!(matches!(
        patient.decide(&json!({"a": 1}), &json!({})),
        Err(PolicyError::Stopped { .. })
    ));

    for (recursion, words) in [
        ("f(x) := f(x + 1)\nallow if f(1) == 1", "leads back"),
        ("f(x) := g(x)\ng(x) := r[x]\nr[1] := data.policy[\"f\"](1)\nallow if f(1)", "leads back"),
        ("a := b\nb := a\nallow if a == 1", "recursion"),
    ] {
        let error = compile(&format!("{head}{recursion}")).unwrap_err();
        assert!(error.to_string().contains(words), "{recursion}: {error}");
    }
    let aliased = "package policy\nimport data.policy as p\nallow if p.f(1)\nf(x) := p.f(x)";
    assert!(compile(aliased).unwrap_err().to_string().contains("imports itself"));
    // The parser reads each bracket twice: 32 levels, which it allows, would take it minutes.
    for bracket in ["[", "{", "("] {
        let error =
            compile(&format!("{head}allow if input.a == {}", bracket.repeat(500))).unwrap_err();
        assert!(matches!(error, PolicyError::Syntax { line: 4, .. }), "{error}");
    }
    let rules: String = (0..1001).map(|rule| format!("r{rule} := 1\n")).collect();
    assert!(compile(&format!("{head}{rules}")).is_err());
}

#[test]
fn attack_policies_that_want_the_whole_memory() {
    let head = "package policy\nimport rego.v1\ndefault allow := false\n";
    let doubled: String =
        (1..40).map(|i| format!("x{i} := concat(\"\", [x{0}, x{0}])\n", i - 1)).collect();
    for bomb in [
        "allow if count(numbers.range(1, 1000000000000)) == 5".to_owned(),
        "allow if count(numbers.range(-9223372036854775807, 9223372036854775807)) == 5".into(),
        "allow if count(numbers.range_step(1, 1000000000000, 2)) == 5".into(),
        "allow if sprintf(\"%4000000000d\", [1]) == \"\"".into(),
        "allow if sprintf(\"%s%.4000000000f\", [\"a\", 1]) == \"\"".into(),
        format!("x0 := \"aaaaaaaaaaaaaaaa\"\n{doubled}allow if x39 == \"\""),
        "allow if strings.replace_n({\"a\": \"aa\"}, \"a\") == \"\"".into(),
    ] {
        let error = compile(&format!("{head}{bomb}")).unwrap_err();
        assert!(matches!(error, PolicyError::Evaluation { .. }), "{bomb}: {error:?}");
    }
    // What they are for still works.
    let policy = compile(&format!(
        "{head}allow if {{ numbers.range(3, 1) == [3, 2, 1]; \
         numbers.range_step(1, 6, 2) == [1, 3, 5]; \
         sprintf(\"%s %3d %v\", [\"a\", 7, {{\"b\": 1}}]) == \"a   7 {{\\\"b\\\": 1}}\"; \
         replace(\"aba\", \"a\", \"cc\") == \"ccbcc\"; \
         concat(\"-\", [\"x\", \"y\"]) == \"x-y\"; array.concat([1], [2]) == [1, 2]; input.a }}"
    ))
    .unwrap();
    assert!(policy.decide(&json!({"a": true}), &json!({})).unwrap().allowed);
    let sizes = [Policy::compile("p", &vec![b' '; MAX_POLICY_BYTES + 1]).unwrap_err()];
    assert!(matches!(sizes[0], PolicyError::TooLarge { .. }));
    let long = json!({"a": "x".repeat(MAX_INPUT_BYTES)});
    assert!(matches!(
        policy.decide(&long, &json!({})),
        Err(PolicyError::TooLarge { what: "the input", .. })
    ));
    assert!(matches!(
        policy.decide(&json!({}), &long),
        Err(PolicyError::TooLarge { what: "the data", .. })
    ));
}

/// Rules that lead to rules, as deep as they are allowed to.
#[test]
fn a_thousand_rules_in_a_row() {
    let chain: String = (0..996).map(|i| format!("x{i} := x{}\n", i + 1)).collect();
    let text = format!(
        "package policy\nimport rego.v1\ndefault allow := false\n{chain}x996 := 1\nallow if x0 == \
         input.x\n"
    );
    assert!(compile(&text).unwrap().decide(&json!({"x": 1}), &json!({})).unwrap().allowed);
}
