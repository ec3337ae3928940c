use cvm_base::Explain as _;
use cvm_layout::{
    layout::{Contents, Layout, MIB},
    names::Role,
    site_conf::Network,
};

use super::*;

/// NVFLARE's own example, with what a sealed bundle needs.
const GOOD: &str = r#"
compute_env: onprem_cvm
cc_cpu_mechanism: amd_sev_snp
role: server
root_drive_size: 45
applog_drive_size: 1
user_config_drive_size: 1
user_data_drive_size: 2
user_config:
  nvflare: /tmp/startup_kits
  mine: ~/mine
hosts_entries:
  server1: 10.176.200.152
  site-2.example: "2001:db8::1"
allowed_ports: [8002, 8002]
allowed_out_ports: [443, 8002, 8999]
class_allow_list: [my.pkg.Executor, my.other.]
cvm_image_name: federation-server
cc_issuers:
  - id: snp_authorizer
    path: nvflare.app_opt.confidential_computing.snp_authorizer.SNPAuthorizer
    token_expiration: 100
    args: {snpguest_binary: /host/bin/snpguest, max_retries: 5}
cc_attestation:
  check_frequency: 120
flare_cvm:
  base_dir: /srv/project
  agreement: agreement.txt
  contributions: [a.txt, /b.txt]
  build: v1
  builder: builder
  base_image: provisioned.qcow2
  profile: debian-12
  layout: layout.yaml
  model: model
  monitors: {statsd: 9125, mlflow: 5000}
  init: cvm-init
  keyholder: {party: delegate, listen: 8443}
  network: {mode: static, address: 10.0.0.2, prefix: 24, gateway: 10.0.0.1, dns: [10.0.0.53]}
  proxy: http://proxy.example:3128
  policies: {self: self.rego, cross: ./cross.rego}
  collector: collector.pub
  attest_port: 8555
  agent: {check_frequency: 30, token_lifetime: 60, leeway: 0, max_clock_wait: 5, snp_reports: alone}
  output: bundles
  replace: true
  allow_untested_nvflare: true
"#;

fn around() -> Surroundings {
    Surroundings { home: Some("/home/me".into()), base_dir: None }
}

fn parse(yaml: &str) -> Result<CcConfig, CcConfigError> {
    CcConfig::parse(yaml.as_bytes(), &around())
}

/// The good file with a part replaced.
fn good_with(from: &str, to: &str) -> Result<CcConfig, CcConfigError> {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    parse(&GOOD.replacen(from, to, 1))
}

#[test]
fn every_key_has_its_effect() {
    let config = parse(GOOD).unwrap();
    assert_eq!((config.compute_env, config.role), (ComputeEnv::OnPremCvm, Role::Server));
    assert_eq!((config.cpu, config.gpu), (Some(CpuMechanism::AmdSevSnp), None));
    assert_eq!(config.kit.as_deref(), Some("/tmp/startup_kits".as_ref()));
    let places: Vec<_> = config
        .extras()
        .iter()
        .map(|e| format!("{} {}", e.place.display(), e.source.display()))
        .collect();
    assert_eq!(
        places,
        [
            "user_config/mine /home/me/mine",
            "policies/self.rego /srv/project/self.rego",
            "policies/cross.rego /srv/project/cross.rego",
            "collateral.pub /srv/project/collector.pub"
        ]
    );
    let [issuer] = config.issuers.as_slice() else { panic!("one issuer") };
    assert_eq!(
        (issuer.id.as_str(), issuer.token_expiration, issuer.args.len()),
        ("snp_authorizer", 100, 2)
    );
    assert_eq!((config.check_frequency, config.class_allow_list.len()), (120, 2));
    assert_eq!(config.image_name.as_ref().unwrap().as_str(), "federation-server");

    let conf = config.site_conf("server1".to_owned().try_into().unwrap());
    conf.check().unwrap();
    assert_eq!(
        (conf.allowed_ports, conf.allowed_out_ports),
        (vec![8002], vec![443, 5000, 8002, 8999])
    );
    assert_eq!(conf.allowed_out_udp_ports, [9125]);
    assert_eq!(conf.hosts_entries["server1"].to_string(), "10.176.200.152");
    assert!(matches!(conf.network, Network::Static { prefix: 24, .. }));
    assert_eq!(conf.proxy.as_deref(), Some("http://proxy.example:3128"));

    let layout = Layout::parse(include_str!("../../../../partitions/default.yaml")).unwrap();
    let layout = config.layout(layout).unwrap();
    assert_eq!(layout.state_bytes(), 46 << 30);
    let placed = layout.place(&Contents { root: MIB, ..Contents::default() }).unwrap();
    let lengths: Vec<u64> = placed.partitions.iter().skip(3).map(|p| p.length >> 30).collect();
    assert_eq!(lengths, [1, 45, 2], "config, jobs, data");

    let own = &config.additions;
    assert_eq!(
        own.contributions,
        ["/srv/project/a.txt".as_ref(), "/b.txt".as_ref()] as [&std::path::Path; 2]
    );
    assert_eq!(own.model.as_deref(), Some("/srv/project/model".as_ref()));
    assert_eq!(own.output.as_deref(), Some("/srv/project/bundles".as_ref()));
    let agent =
        "version: 1\nattest_port: 8555\ncheck_frequency_s: 30\ntoken_lifetime_s: 60\nleeway_s: 0\n";
    assert_eq!(
        own.agent.yaml().unwrap(),
        format!("{agent}max_clock_wait_s: 5\nsnp_reports: alone\n")
    );
    assert!(own.replace && own.allow_untested_nvflare);
}

#[test]
fn what_is_left_out_has_nvflares_meaning() {
    let least = "compute_env: onprem_cvm\nrole: client\n\
                 cc_issuers: [{id: a, path: b.C, token_expiration: 599}]\n";
    let config = parse(least).unwrap();
    assert_eq!(config.check_frequency, 600);
    let conf = config.site_conf("site-1".to_owned().try_into().unwrap());
    assert_eq!((conf.allowed_ports, conf.allowed_out_ports), (vec![], vec![8002, 8003]));
    let layout = Layout::parse(include_str!("../../../../partitions/default.yaml")).unwrap();
    assert_eq!(config.layout(layout.clone()).unwrap(), layout);
    let class = |class: &str| {
        least.replace("b.C", &format!("nvflare.app_opt.confidential_computing.{class}"))
    };
    let ports = |yaml: &str| {
        parse(yaml).unwrap().site_conf("site-1".to_owned().try_into().unwrap()).allowed_out_ports
    };
    let gpu = format!("{}cc_gpu_mechanism: nvidia_cc\n", class("gpu_authorizer.GPUAuthorizer"));
    assert_eq!(ports(&gpu), [443, 8002, 8003], "NRAS");
    let closed = parse(&format!("{gpu}allowed_out_ports: [8002]\n")).unwrap_err();
    assert!(
        closed.code() == "CCC-008" && closed.to_string().contains("GPUAuthorizer asks"),
        "{closed}"
    );
    assert_eq!(
        ports(&class("snp_authorizer.SNPAuthorizer")),
        [8002, 8003],
        "the agent needs no service of AMD's"
    );
    let monitor =
        parse(&format!("{least}flare_cvm: {{monitors: {{mlflow: 5000}}}}\n")).unwrap_err();
    assert!(
        monitor.code() == "CCC-008" && monitor.to_string().contains("flare_cvm.monitors.mlflow"),
        "{monitor}"
    );
    // An empty list opens no port.
    let none = parse(&format!("{least}allowed_out_ports: []\n")).unwrap();
    assert_eq!(
        none.site_conf("site-1".to_owned().try_into().unwrap()).allowed_out_ports,
        Vec::<u16>::new()
    );
    // Logs alone come on top of the layout's state.
    let logs = parse(&format!("{least}applog_drive_size: 1\n")).unwrap();
    assert_eq!(logs.layout(layout).unwrap().state_bytes(), 9 << 30);
    // The other spelling of NVFLARE's guide, merge keys as PyYAML reads them, and an anchor as it
    // writes them.
    let guide = parse(&format!("{least}host_entries: {{server1: 10.0.0.1}}\n")).unwrap();
    assert_eq!(guide.hosts_entries.len(), 1);
    let merged = "x: &x {role: client}\n";
    assert_eq!(parse(&format!("{merged}{least}")).unwrap_err().code(), "CCC-002");
    let anchors = parse(&format!("{least}allowed_ports: &p [1]\nallowed_out_ports: *p\n")).unwrap();
    assert_eq!(anchors.allowed_out_ports, Some(vec![1]));
}

/// A part of the good file, what takes its place, the code, and the key that the error names.
const WRONG_VALUES: &[(&str, &str, &str, &str)] = &[
    ("compute_env: onprem_cvm", "compute_env: onprem", "CCC-004", "compute_env"),
    ("compute_env: onprem_cvm", "compute_env: azure_cvm", "CCC-005", "compute_env"),
    (
        "compute_env: onprem_cvm",
        "compute_env: azure_confidential_container",
        "CCC-005",
        "compute_env",
    ),
    ("compute_env: onprem_cvm\n", "", "CCC-003", "compute_env"),
    (
        "cc_cpu_mechanism: amd_sev_snp",
        "cc_cpu_mechanism: [amd_sev_snp]",
        "CCC-004",
        "cc_cpu_mechanism",
    ),
    ("cc_cpu_mechanism: amd_sev_snp", "cc_cpu_mechanism: intel_tdx", "CCC-008", "cc_cpu_mechanism"),
    ("role: server", "role: admin", "CCC-004", "role"),
    ("role: server\n", "", "CCC-003", "role"),
    ("attest_port: 8555", "attest_port: 0", "CCC-004", "flare_cvm.attest_port"),
    ("leeway: 0", "leeway: 301", "CCC-004", "flare_cvm.agent.leeway"),
    ("leeway: 0", "lee_way: 0", "CCC-002", "flare_cvm.agent.lee_way"),
    ("role: server", "role: server\ncc_gpu_mechanism: amd", "CCC-004", "cc_gpu_mechanism"),
    ("root_drive_size: 45", "root_drive_size: '45'", "CCC-004", "root_drive_size"),
    ("root_drive_size: 45", "root_drive_size: 0", "CCC-004", "root_drive_size"),
    ("root_drive_size: 45", "root_drive_size: 1.5", "CCC-004", "root_drive_size"),
    ("root_drive_size: 45", "root_drive_size: 99999999999999999999", "CCC-001", "root_drive_size"),
    ("applog_drive_size: 1", "applog_drive_size: -1", "CCC-004", "applog_drive_size"),
    (
        "user_config_drive_size: 1",
        "user_config_drive_size: 1GB",
        "CCC-004",
        "user_config_drive_size",
    ),
    ("user_data_drive_size: 2", "user_data_drive_size: true", "CCC-004", "user_data_drive_size"),
    ("role: server", "role: server\ndocker_archive: [x]", "CCC-004", "docker_archive"),
    ("  mine: ~/mine", "  ../mine: ~/mine", "CCC-005", "user_config.../mine"),
    ("  mine: ~/mine", "  mine: 7", "CCC-004", "user_config.mine"),
    ("server1: 10.176.200.152", "server1: 10.176.200", "CCC-004", "hosts_entries.server1"),
    ("server1: 10.176.200.152", "ser ver1: 10.176.200.152", "CCC-005", "hosts_entries.ser ver1"),
    ("role: server", "role: server\nhost_entries: {a: 10.0.0.1}", "CCC-008", "host_entries"),
    ("allowed_ports: [8002, 8002]", "allowed_ports: 8002", "CCC-004", "allowed_ports"),
    ("allowed_ports: [8002, 8002]", "allowed_ports: ['8002']", "CCC-004", "allowed_ports[0]"),
    ("allowed_out_ports: [443", "allowed_out_ports: [65536", "CCC-004", "allowed_out_ports[0]"),
    ("[my.pkg.Executor, my.other.]", "my.pkg.Executor", "CCC-004", "class_allow_list"),
    ("[my.pkg.Executor, my.other.]", "[my.pkg.Executor, '']", "CCC-004", "class_allow_list[1]"),
    ("[my.pkg.Executor, my.other.]", "['*']", "CCC-005", "class_allow_list[0]"),
    ("[my.pkg.Executor, my.other.]", "[my]", "CCC-004", "class_allow_list[0]"),
    ("[my.pkg.Executor, my.other.]", "[' my.a']", "CCC-004", "class_allow_list[0]"),
    ("[my.pkg.Executor, my.other.]", "[my..a]", "CCC-004", "class_allow_list[0]"),
    ("snp_reports: alone", "snp_reports: always", "CCC-004", "flare_cvm.agent.snp_reports"),
    ("statsd: 9125", "statsd: host:9125", "CCC-004", "flare_cvm.monitors.statsd"),
    ("statsd: 9125", "statsd: 0", "CCC-004", "flare_cvm.monitors.statsd"),
    ("statsd: 9125", "tensorboard: 6006", "CCC-005", "flare_cvm.monitors.tensorboard"),
    ("cvm_image_name: federation-server", "cvm_image_name: a/b", "CCC-004", "cvm_image_name"),
    ("id: snp_authorizer", "id: ../snp", "CCC-004", "cc_issuers[0].id"),
    ("    token_expiration: 100\n", "", "CCC-003", "cc_issuers[0].token_expiration"),
    (
        "token_expiration: 100",
        "token_expiration: 100.5",
        "CCC-004",
        "cc_issuers[0].token_expiration",
    ),
    ("token_expiration: 100", "token_expiration: 120", "CCC-008", "cc_issuers[0].token_expiration"),
    ("path: nvflare.app_opt", "path: os; import", "CCC-004", "cc_issuers[0].path"),
    ("args: {snpguest_binary", "args: [snpguest_binary", "CCC-001", ""),
    (
        "args: {snpguest_binary: /host/bin/snpguest, max_retries: 5}",
        "args: 5",
        "CCC-004",
        "cc_issuers[0].args",
    ),
    ("snp_authorizer.SNPAuthorizer", "gpu_authorizer.GPUAuthorizer", "CCC-008", "cc_gpu_mechanism"),
    (
        "snp_authorizer.SNPAuthorizer",
        "mock_authorizer.MockAuthorizer",
        "CCC-008",
        "compute_env: mock",
    ),
    ("check_frequency: 120", "check_frequency: often", "CCC-004", "cc_attestation.check_frequency"),
    (
        "check_frequency: 120",
        "check_frequency: 120\n  failure_action: stop_job",
        "CCC-005",
        "failure_action",
    ),
    ("flare_cvm:", "flare_cvm: x #", "CCC-001", ""),
    (
        "contributions: [a.txt, /b.txt]",
        "contributions: a.txt",
        "CCC-004",
        "flare_cvm.contributions",
    ),
    ("build: v1", "build: v 1", "CCC-004", "flare_cvm.build"),
    ("prefix: 24", "prefix: 33", "CCC-004", "flare_cvm.network.prefix"),
    ("listen: 8443", "listen: 65536", "CCC-004", "flare_cvm.keyholder.listen"),
    ("{party: delegate, ", "{", "CCC-003", "flare_cvm.keyholder.party"),
    ("role: server", "role: client", "CCC-008", "flare_cvm.keyholder"),
    ("{mode: static,", "{mode: dhcp,", "CCC-005", "flare_cvm.network.address"),
    ("{mode: static,", "{", "CCC-003", "flare_cvm.network.mode"),
    ("proxy: http://", "proxy: ftp://", "CCC-004", "flare_cvm.proxy"),
    ("{self: self.rego", "{boot: b.rego, self: self.rego", "CCC-005", "ceremony"),
    ("replace: true", "replace: 'yes'", "CCC-004", "flare_cvm.replace"),
    (
        "replace: true",
        "replace: true\n  unlock_key: k\n  passphrase_file: p",
        "CCC-008",
        "flare_cvm.unlock_key",
    ),
    ("base_dir: /srv/project", "base_dir: project", "CCC-006", "flare_cvm.base_dir"),
];

#[test]
fn a_wrong_value_is_refused_with_its_key() {
    for (from, to, code, key) in WRONG_VALUES {
        let error = good_with(from, to).unwrap_err();
        let text = format!("{error}; {}", error.help());
        assert_eq!(error.code(), *code, "{to}: {text}");
        assert!(text.contains(key), "{to}: {text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_the_closest_known_one() {
    for (from, to, key, help) in [
        ("allowed_ports:", "alowed_ports:", "alowed_ports", "did you mean allowed_ports?"),
        ("role: server", "Role: server", "Role", "did you mean role?"),
        ("hosts_entries:", "hosts_entry:", "hosts_entry", "did you mean hosts_entries?"),
        (
            "token_expiration:",
            "token_expiry:",
            "cc_issuers[0].token_expiry",
            "the keys are args, id",
        ),
        (
            "check_frequency:",
            "check_freqency:",
            "cc_attestation.check_freqency",
            "check_frequency?",
        ),
        ("base_image:", "base_imag:", "flare_cvm.base_imag", "did you mean flare_cvm.base_image?"),
        (
            "gateway:",
            "gatway:",
            "flare_cvm.network.gatway",
            "did you mean flare_cvm.network.gateway?",
        ),
        ("role: server", "role: server\n? 5\n: x", "5", "the keys are"),
        (
            "role: server",
            "role: server\nfailure_action: stop_job",
            "failure_action",
            "the keys are",
        ),
    ] {
        let error = good_with(from, to).unwrap_err();
        assert_eq!(error.code(), "CCC-002", "{to}: {error}");
        assert!(error.to_string().starts_with(&format!("{key}: ")), "{error}");
        assert!(error.help().contains(help), "{to}: {}", error.help());
    }
}

const DEMO: &str = include_str!("../../../../tests/demo/cc_site-1.yml");

/// A base image with that kernel and driver.
fn base(kernel: &str, driver: Option<serde_json::Value>) -> crate::stage::StageMeta {
    let digest = "00".repeat(32);
    let mut meta = serde_json::json!({
        "version": 1, "stage": "provision_build", "profile": "debian-12",
        "inputs_sha256": digest, "base_sha256": null, "content_sha256": digest,
        "system_bytes": 1, "system": null, "kernel": kernel, "python": [], "gate": [],
        "packages": ["nvidia-smi_535_amd64"],
    });
    if let Some(driver) = driver {
        meta["driver"] = driver;
    }
    serde_json::from_value(meta).unwrap()
}

#[test]
fn gpus_need_a_base_image_with_their_driver() {
    let config = parse(&format!("{DEMO}cc_gpu_mechanism: nvidia_cc\n")).unwrap();
    let error = config.check_surroundings(&base("6.12.95", None)).unwrap_err();
    assert_eq!(error.code(), "CCC-005");
    assert!(error.to_string().starts_with("cc_gpu_mechanism: nvidia_cc is refused"), "{error}");
    assert!(
        error.help().contains("flare-cvm build nvidia_cc_base --profile debian-12-nvidia"),
        "{}",
        error.help()
    );
    let driver = serde_json::json!({"modules": ["nvidia"], "signer_sha256": "00".repeat(32)});
    config.check_surroundings(&base("6.12.95", Some(driver))).unwrap();
}

#[test]
fn a_td_needs_a_kernel_that_measures_the_end_of_its_boot() {
    let config = parse(&format!("{DEMO}cc_cpu_mechanism: intel_tdx\n")).unwrap();
    for release in ["6.12.95+deb12-cloud-amd64", "6.15.1-1", "5.16.0", "6", "nonsense"] {
        let error = config.check_surroundings(&base(release, None)).unwrap_err();
        assert!(
            error.code() == "CCC-005" && error.help().contains("--profile debian-12-tdx"),
            "{release}: {error}"
        );
    }
    for release in ["6.16.0", "6.16+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"] {
        config.check_surroundings(&base(release, None)).unwrap();
    }
    parse(DEMO).unwrap().check_surroundings(&base("6.12.95", None)).unwrap();
}

#[test]
fn a_relative_path_needs_a_base() {
    let without = GOOD.replace("  base_dir: /srv/project\n", "");
    let error = parse(&without).unwrap_err();
    assert_eq!(error.code(), "CCC-006");
    assert!(error.to_string().contains("flare_cvm.agreement"), "{error}");
    assert!(
        error.help().contains("flare_cvm.base_dir") && error.help().contains(BASE_DIR_VARIABLE)
    );
    let base = Surroundings { base_dir: Some("/env".into()), ..around() };
    let config = CcConfig::parse(without.as_bytes(), &base).unwrap();
    assert_eq!(config.additions.agreement.as_deref(), Some("/env/agreement.txt".as_ref()));
    // The file's own base wins, and holds for NVFLARE's keys too.
    let yaml = GOOD.replace("role: server", "role: server\ndocker_archive: app.tar.gz");
    let config = CcConfig::parse(yaml.as_bytes(), &base).unwrap();
    assert_eq!(config.docker_archive.as_deref(), Some("/srv/project/app.tar.gz".as_ref()));
    // Without a known home, `~/` leads nowhere.
    let homeless = Surroundings::default();
    assert_eq!(CcConfig::parse(GOOD.as_bytes(), &homeless).unwrap_err().code(), "CCC-006");
}

#[test]
fn attack_input_that_is_not_a_configuration() {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &(b'b'..=b'k')
            .map(|c| {
                format!(
                    "{}: &{} [{}]\n",
                    c as char,
                    c as char,
                    vec![format!("*{}", (c - 1) as char); 9].join(", ")
                )
            })
            .collect::<String>();
    let deep = format!("role: {}", "[".repeat(60_000));
    for (yaml, code) in [
        ("", "CCC-001"),
        ("[]", "CCC-001"),
        ("role: a\nrole: b", "CCC-001"),
        ("---\nrole: a\n---\nrole: b\n", "CCC-001"),
        (bomb.as_str(), "CCC-001"),
        (deep.as_str(), "CCC-001"),
        ("role: !!python/object/apply:os.system [id]", "CCC-003"),
        ("role: server\ncompute_env: !x onprem_cvm", "CCC-004"),
    ] {
        let error = parse(yaml).unwrap_err();
        assert_eq!(error.code(), code, "{}: {error}", &yaml[..yaml.len().min(80)]);
        assert!(error.to_string().len() < 400, "{error}");
    }
    let two = GOOD.replace(
        "cc_attestation:",
        "  - {id: snp_authorizer, path: a.B, token_expiration: 1}\ncc_attestation:",
    );
    assert_eq!(parse(&two).unwrap_err().code(), "CCC-008");
    let empty = "compute_env: onprem_cvm\nrole: server\ncc_issuers: []\n";
    assert_eq!(parse(empty).unwrap_err().code(), "CCC-004");
}

#[test]
fn seeds_and_damaged_seeds_never_panic() {
    cvm_testkit::seeds::each_seed("cc_config", 2000, fuzz);
}
