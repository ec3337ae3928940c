use std::fs;

use cvm_base::Explain as _;
use serde_json::json;

use super::*;
use crate::cc::Surroundings;

const POLICY: &str = include_str!("../../../../../keys/policies/nvidia-result-policy-1.0.json");
const SNP: &str = "nvflare.app_opt.confidential_computing.snp_authorizer.SNPAuthorizer";
const GPU: &str = "nvflare.app_opt.confidential_computing.gpu_authorizer.GPUAuthorizer";

/// A client's kit as `CCBuilder` and `OnPremCVMBuilder` leave it.
struct Kit(tempfile::TempDir);

impl Kit {
    fn new(manager_args: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["startup", "local"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let kit = Self(dir);
        kit.write("startup/fed_client.json", &json!({"format_version": 2}));
        kit.write(
            "local/resources.json.default",
            &json!({
                "class_allow_list": ["a.B"],
                "components": [{"id": "resource_manager", "path": "a.B"}],
            }),
        );
        kit.component("cc_manager", MANAGER, manager_args);
        kit.component("snp_authorizer", SNP, json!({"max_retries": 5}));
        fs::write(kit.0.path().join("local/evidence.plc"), "").unwrap();
        fs::write(kit.0.path().join("local/result.plc"), POLICY).unwrap();
        kit
    }

    fn write(&self, file: &str, value: &Value) {
        fs::write(self.0.path().join(file), value.to_string()).unwrap();
    }

    fn component(&self, id: &str, path: &str, args: Value) {
        let component = json!({"components": [{"id": id, "path": path, "args": args}]});
        self.write(&format!("local/{id}__p_resources.json"), &component);
    }

    fn check(
        &self,
        nvflare: &str,
        config: Option<&CcConfig>,
        allow_untested: bool,
    ) -> Result<Vec<String>, ManagerError> {
        let python = [format!("nvflare=={nvflare}"), "filelock==4.2.11".into()];
        let site = "site-1".to_owned().try_into().unwrap();
        let kit = self.0.path();
        check(&ManagerCheck {
            kit,
            role: Role::Client,
            site: &site,
            python: &python,
            config,
            allow_untested,
        })
    }

    /// Code and text of what must be refused.
    fn refused(&self) -> (&'static str, String) {
        let error = self.check("2.9.0", None, false).unwrap_err();
        assert!(error.help().len() > 10);
        (error.code(), format!("{error}; {}", error.help()))
    }
}

/// What NVFLARE 2.9 writes for its own example.
fn good() -> Value {
    json!({
        "cc_issuers_conf": [{"issuer_id": "snp_authorizer", "token_expiration": 100}],
        "cc_verifier_ids": ["snp_authorizer"],
        "verify_frequency": 120,
        "cc_enabled_sites": ["server", "site-1"],
        "get_site_request_timeout": 10.0,
        "get_token_request_timeout": 5,
    })
}

/// The good arguments with one replaced, or taken out where `value` is null.
fn kit_with(argument: &str, value: Value) -> Kit {
    let mut args = good();
    match value {
        Value::Null => drop(args.as_object_mut().unwrap().remove(argument)),
        value => args[argument] = value,
    }
    Kit::new(args)
}

fn old(change: impl FnOnce(&mut Value)) -> Value {
    let mut verifier = json!({
        "devices": "gpu",
        "env": "local",
        "url": "",
        "appraisal_policy_file": "local/evidence.plc",
        "result_policy_file": "local/result.plc",
    });
    change(&mut verifier);
    json!({"verifiers": [verifier]})
}

#[test]
fn nvflares_own_configuration_passes_and_says_what_the_image_must_have() {
    let remarks = Kit::new(good()).check("2.9.0", None, false).unwrap();
    assert!(
        matches!(remarks.as_slice(), [one] if one.contains("a machine with SEV-SNP")),
        "{remarks:?}"
    );
    for version in ["2.7.2", "2.8.0"] {
        Kit::new(good()).check(version, None, false).unwrap();
    }
    let kit = Kit::new(good());
    assert!(names_snp_authorizer(kit.0.path(), Role::Client).unwrap());
    kit.component(
        "snp_authorizer",
        SNP,
        json!({"snpguest_binary": "/host/bin/snpguest", "amd_certs_dir": "/tmp/certs"}),
    );
    kit.check("2.9.0", None, false).unwrap();
    kit.component("cc_manager", "flare_cvm.manager.CVMManager", good());
    kit.component("snp_authorizer", "flare_cvm.authorizer.CVMAuthorizer", json!({"anything": 1}));
    assert_eq!(kit.check("2.9.0", None, false).unwrap(), Vec::<String>::new());
    assert!(!names_snp_authorizer(kit.0.path(), Role::Client).unwrap());
    // The frequency's default is NVFLARE's.
    kit_with("verify_frequency", Value::Null).check("2.9.0", None, false).unwrap();
}

#[test]
fn an_untested_nvflare_is_refused_unless_told() {
    for version in ["2.10.0", "2.6.1", "2.7.0", "2.7.2rc1", "2.9.1", "2.9.1rc5", "3.0.0", "x"] {
        let error = Kit::new(good()).check(version, None, false).unwrap_err();
        assert_eq!(error.code(), "CCC-018", "{error}");
        assert!(error.to_string().contains("2.7.1, 2.7.2, 2.8.0, 2.9.0"));
        let remarks = Kit::new(good()).check(version, None, true).unwrap();
        assert!(remarks.iter().any(|remark| remark.contains("not tested")), "{remarks:?}");
    }
}

#[test]
fn an_authorizer_that_would_fail_in_a_sealed_machine_is_refused_with_what_it_lacks() {
    const PACKAGE: &str = "nvflare.app_opt.confidential_computing";
    for (class, args, missing) in [
        (
            "tdx_authorizer.TDXAuthorizer",
            json!({"tdx_cli_command": "x", "config_dir": "y"}),
            "sudo",
        ),
        ("az_cvm_authorizer.AZCVMAuthorizer", json!({}), "sudo"),
        ("aci_authorizer.ACIAuthorizer", json!({}), "8284"),
        ("gpu_authorizer.GPUAuthorizer", json!({}), "nv-attestation-sdk"),
    ] {
        let kit = Kit::new(good());
        kit.component("snp_authorizer", &format!("{PACKAGE}.{class}"), args);
        let (code, text) = kit.refused();
        assert_eq!(code, "CCC-023", "{text}");
        assert!(text.contains(missing) && text.contains("CVMAuthorizer"), "{text}");
    }
    let kit = Kit::new(good());
    kit.component("snp_authorizer", GPU, json!({}));
    let python = ["nvflare==2.9.0".to_owned(), "nv-attestation-sdk==2.6.3".to_owned()];
    let site = "site-1".to_owned().try_into().unwrap();
    let with_sdk = ManagerCheck {
        kit: kit.0.path(),
        role: Role::Client,
        site: &site,
        python: &python,
        config: None,
        allow_untested: false,
    };
    assert!(check(&with_sdk).unwrap()[0].contains("NRAS"));
}

#[test]
fn a_wrong_argument_is_named() {
    let issuer = |entry: Value| kit_with("cc_issuers_conf", json!([entry]));
    for (kit, code, words) in [
        (kit_with("cc_isuers_conf", json!([])), "CCC-012", "did you mean cc_issuers_conf?"),
        (kit_with("cc_issuers_conf", json!([])), "CCC-011", "cc_issuers_conf"),
        (kit_with("cc_issuers_conf", Value::Null), "CCC-011", "cc_issuers_conf"),
        (issuer(json!("snp_authorizer")), "CCC-011", "an object"),
        (issuer(json!({"issuer_id": "snp_authorizer"})), "CCC-011", "token_expiration"),
        (
            issuer(json!({"issuer_id": "snp_authorizer", "token_expiration": "100"})),
            "CCC-011",
            "token_expiration",
        ),
        (
            issuer(json!({"issuer_id": "snp_authorizer", "token_expiration": 120})),
            "CCC-015",
            "120 s",
        ),
        (issuer(json!({"issuer_id": "tdx", "token_expiration": 100})), "CCC-013", "\"tdx\""),
        (
            issuer(json!({"issuer_id": "snp_authorizer", "token_expiration": 1, "url": ""})),
            "CCC-012",
            "url",
        ),
        (kit_with("cc_verifier_ids", json!([])), "CCC-011", "cc_verifier_ids"),
        (kit_with("cc_verifier_ids", json!([1])), "CCC-011", "cc_verifier_ids"),
        (
            kit_with("cc_verifier_ids", json!(["snp_authorizer", "tdx"])),
            "CCC-013",
            "cc_verifier_ids[1]",
        ),
        (
            kit_with("cc_verifier_ids", json!(["snp_authorizer", "snp_authorizer"])),
            "CCC-014",
            "same class",
        ),
        (kit_with("verify_frequency", json!("120")), "CCC-011", "verify_frequency"),
        (kit_with("verify_frequency", json!(true)), "CCC-011", "verify_frequency"),
        (kit_with("verify_frequency", json!(120.0)), "CCC-011", "verify_frequency"),
        (kit_with("cc_enabled_sites", Value::Null), "CCC-011", "cc_enabled_sites"),
        (kit_with("cc_enabled_sites", json!(["server"])), "CCC-016", "\"site-1\""),
        (
            kit_with("cc_enabled_sites", json!(["server1", "site-1"])),
            "CCC-016",
            "literally `server`",
        ),
        (kit_with("get_site_request_timeout", json!(0)), "CCC-011", "get_site_request_timeout"),
        (
            kit_with("get_token_request_timeout", json!("10")),
            "CCC-011",
            "get_token_request_timeout",
        ),
    ] {
        let (found, text) = kit.refused();
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
}

type Change = fn(&Kit);

/// A change of a kit's components, the code, and what the refusal must say.
fn changes_of_components() -> [(Change, &'static str, &'static str); 11] {
    [
        (
            |kit| fs::remove_file(kit.0.path().join("local/cc_manager__p_resources.json")).unwrap(),
            "CCC-010",
            "CCBuilder",
        ),
        (|kit| kit.component("cc_manager2", MANAGER, good()), "CCC-014", "a CC manager"),
        (
            |kit| {
                kit.write(
                    "local/a__p_resources.json",
                    &json!({"components": [{"id": "snp_authorizer", "path": "a.B"}]}),
                )
            },
            "CCC-014",
            "same id",
        ),
        (
            |kit| kit.component("snp_authorizer", SNP, json!({"max_retrys": 5})),
            "CCC-012",
            "did you mean max_retries?",
        ),
        (
            |kit| kit.component("snp_authorizer", SNP, json!({"snpguest_binary": "/bin/x"})),
            "CCC-011",
            "/host/bin/snpguest",
        ),
        (
            |kit| kit.component("snp_authorizer", SNP, json!({"amd_certs_dir": "/etc/certs"})),
            "CCC-011",
            "/opt/certs",
        ),
        (
            |kit| {
                kit.write(
                    "local/cc_manager__p_resources.json",
                    &json!({"components": [{"id": "cc_manager"}]}),
                )
            },
            "CCC-011",
            "components[0].path",
        ),
        (
            |kit| {
                kit.write(
                    "local/cc_manager__p_resources.json",
                    &json!({"components": [{"id": "a", "path": "b.C", "args": []}]}),
                )
            },
            "CCC-011",
            "components[0].args",
        ),
        (
            |kit| fs::write(kit.0.path().join("local/cc_manager__p_resources.json"), "{").unwrap(),
            "CCC-011",
            "JSON",
        ),
        (
            |kit| {
                kit.component(
                    "snp_authorizer",
                    "nvflare.app_opt.confidential_computing.tdx_authorizer.TDXAuthorizer",
                    json!({}),
                )
            },
            "CCC-011",
            "tdx_cli_command",
        ),
        (
            |kit| kit.component("snp_authorizer", GPU, json!({"policy_file": "/tmp/p.json"})),
            "CCC-019",
            "outside the startup kit",
        ),
    ]
}

#[test]
fn the_components_of_the_kit_are_checked() {
    for (change, code, words) in changes_of_components() {
        let kit = Kit::new(good());
        change(&kit);
        let (found, text) = kit.refused();
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
    let kit = Kit::new(good());
    kit.component("snp_authorizer", "my.company.Authorizer", json!({"x": 1}));
    assert!(kit.check("2.9.0", None, false).unwrap()[0].contains("does not know"));
}

#[test]
fn the_older_style_is_checked_and_belongs_to_older_releases() {
    Kit::new(old(|_| ())).check("2.4.0", None, true).unwrap();
    let test = old(|verifier| {
        verifier["devices"] = "cpu".into();
        verifier["env"] = "test".into();
        verifier["appraisal_policy_file"] = "/opt/nvflare/workspace/local/evidence.plc".into();
    });
    Kit::new(test).check("2.4.0", None, true).unwrap();
    assert_eq!(Kit::new(old(|_| ())).refused().0, "CCC-017");
    assert_eq!(Kit::new(good()).check("2.4.0", None, true).unwrap_err().code(), "CCC-017");

    type Change = fn(&mut Value);
    let cases: [(Change, &str, &str); 13] = [
        (|v| v["env"] = "test".into(), "CCC-011", "devices gpu with env test"),
        (|v| v["devices"] = "cpu".into(), "CCC-011", "devices cpu with env local"),
        (|v| v["devices"] = "npu".into(), "CCC-011", "npu"),
        (|v| v["env"] = json!(1), "CCC-011", "env"),
        (|v| v["url"] = "https://nras".into(), "CCC-011", "an empty text"),
        (|v| drop(v.as_object_mut().unwrap().remove("url")), "CCC-011", "nothing"),
        (|v| v["urls"] = "".into(), "CCC-012", "did you mean url?"),
        (|v| v["appraisal_policy_file"] = "local/none.plc".into(), "CCC-019", "local/none.plc"),
        (|v| v["appraisal_policy_file"] = "../evidence.plc".into(), "CCC-019", "outside"),
        (|v| v["result_policy_file"] = "/etc/passwd".into(), "CCC-019", "outside"),
        (|v| v["result_policy_file"] = "".into(), "CCC-019", "outside"),
        (|v| v["result_policy_file"] = "local/evidence.plc".into(), "CCC-011", "JSON"),
        (|v| *v = "gpu".into(), "CCC-011", "verifiers[0]"),
    ];
    for (change, code, words) in cases {
        let (found, text) = Kit::new(old(change)).refused();
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
    let mut both = old(|_| ());
    both["verify_frequency"] = json!(600);
    assert_eq!(Kit::new(both).refused().0, "CCC-012");
    assert_eq!(Kit::new(json!({"verifiers": []})).refused().0, "CCC-011");
    // NVFLARE's first GPU authorizer takes the same entries.
    let kit = Kit::new(good());
    kit.component("snp_authorizer", GPU, old(|v| v["url"] = "x".into()));
    assert_eq!(kit.refused().0, "CCC-011");
}

#[test]
fn a_result_policy_has_exactly_the_28_claims() {
    let policy = |change: &dyn Fn(&mut Value)| {
        let mut policy: Value = serde_json::from_str(POLICY).unwrap();
        change(&mut policy);
        policy::result_policy("result.plc", policy.to_string().as_bytes())
    };
    policy(&|_| ()).unwrap();
    let rules: Value = serde_json::from_str(POLICY).unwrap();
    let claims: Vec<String> =
        rules["authorization-rules"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(claims.len(), 28);
    for claim in claims {
        let missing =
            policy(&|p| drop(p["authorization-rules"].as_object_mut().unwrap().remove(&claim)))
                .unwrap_err();
        assert!(missing.code() == "CCC-021" && missing.to_string().contains(&claim), "{missing}");
        let off = policy(&|p| p["authorization-rules"][&claim] = false.into()).unwrap_err();
        assert!(off.code() == "CCC-011" && off.to_string().contains(&claim), "{off}");
    }
    let unknown =
        policy(&|p| p["authorization-rules"]["x-nv-gpu-avalable"] = true.into()).unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.help().as_str()),
        ("CCC-020", "did you mean x-nv-gpu-available?")
    );
    assert_eq!(policy(&|p| p["version"] = "4.0".into()).unwrap_err().code(), "CCC-011");
    assert_eq!(policy(&|p| p["version"] = json!(1.0)).unwrap_err().code(), "CCC-011");
    assert_eq!(policy(&|p| p["rules"] = json!({})).unwrap_err().code(), "CCC-012");
    assert_eq!(policy(&|p| p["authorization-rules"] = json!([])).unwrap_err().code(), "CCC-011");
    assert_eq!(policy::result_policy("x", b"{").unwrap_err().code(), "CCC-011");
    assert_eq!(policy::result_policy("x", b"[]").unwrap_err().code(), "CCC-011");
}

#[test]
fn a_kit_of_another_configuration_is_refused() {
    let yaml = format!(
        "compute_env: onprem_cvm\nrole: client\nclass_allow_list: [a.B]\n\
         cc_issuers: [{{id: snp_authorizer, path: {SNP}, token_expiration: 100, \
         args: {{max_retries: 5}}}}]\ncc_attestation: {{check_frequency: 120}}\n"
    );
    let parse = |from: &str, to: &str| {
        assert!(yaml.contains(from), "{from}");
        CcConfig::parse(yaml.replace(from, to).as_bytes(), &Surroundings::default()).unwrap()
    };
    let kit = Kit::new(good());
    kit.check("2.9.0", Some(&parse("x", "x")), false).unwrap();
    for (from, to, words) in [
        ("check_frequency: 120", "check_frequency: 121", "verify_frequency"),
        ("token_expiration: 100", "token_expiration: 99", "99 s"),
        ("max_retries: 5", "max_retries: 6", "args"),
        (SNP, "a.b.C", "path"),
        ("id: snp_authorizer", "id: other", "other"),
        ("[a.B]", "[a.B, a.C]", "class_allow_list"),
    ] {
        let error = kit.check("2.9.0", Some(&parse(from, to)), false).unwrap_err();
        assert_eq!(error.code(), "CCC-022", "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
