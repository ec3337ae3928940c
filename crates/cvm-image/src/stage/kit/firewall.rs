//! The site's part of the firewall.

use cvm_layout::{manifest::GpuMechanism, site_conf::SiteConf};

/// The rules for one site: its ports; name servers, if it may connect to anything; and key holders
/// for `cvm-jobs`, if the image requires GPUs.
pub(super) fn rules(conf: &SiteConf, gpu: Option<GpuMechanism>) -> String {
    let mut text =
        "# The site's ports, from its site_conf.yaml; /etc/nftables.conf includes this.\n"
            .to_owned();
    for (set, ports) in
        [("allowed_in", &conf.allowed_ports), ("allowed_out", &conf.allowed_out_ports)]
    {
        if !ports.is_empty() {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            text += &format!("add element inet filter {set} {{ {list} }}\n");
        }
    }
    if !conf.allowed_out_udp_ports.is_empty() {
        let list =
            conf.allowed_out_udp_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        text += &format!("add rule inet filter site_out udp dport {{ {list} }} accept\n");
    }
    if !(conf.allowed_out_ports.is_empty() && conf.allowed_out_udp_ports.is_empty()) {
        text += "add rule inet filter site_out udp dport 53 accept\nadd rule inet filter site_out \
            tcp dport 53 accept\n";
    }
    if gpu.is_some() {
        // By its user: nobody knows today at which ports key holders will answer
        // (`endpoints.yaml`), and root here is the sealed system's own programs.
        text += "add rule inet filter site_out meta skuid 0 meta l4proto { tcp, udp } ct state new \
            accept\n";
    }
    text
}
