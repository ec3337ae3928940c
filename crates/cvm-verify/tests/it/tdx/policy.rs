//! What the policy makes of genuine quotes.

use cvm_base::Explain as _;
use cvm_verify::tdx::{TcbStatus, TdxClaims, TdxPolicy};

use super::{ALL, CONFAI, NEAR, quote, td};

#[test]
fn policy_decides_what_is_acceptable() {
    let outdated = td(&quote("phala-tdx_quote"), "near-mpc-nopck", NEAR).unwrap();
    let strict = TdxPolicy::default();
    let refused = strict.check(&outdated).unwrap_err();
    assert_eq!(refused.code(), "ATT-414");
    assert!(refused.to_string().contains("OutOfDate (INTEL-SA-01192, INTEL-SA-01245"), "{refused}");
    let lax = TdxPolicy { tcb_statuses: [TcbStatus::OutOfDate].into(), ..strict.clone() };
    lax.check(&outdated).unwrap();
    let code = |policy: TdxPolicy, claims: &TdxClaims| policy.check(claims).unwrap_err().code();
    let rejected =
        TdxPolicy { rejected_advisories: ["INTEL-SA-01313".into()].into(), ..lax.clone() };
    assert_eq!(code(rejected, &outdated), "ATT-415");
    assert_eq!(
        code(TdxPolicy { accepted_advisories: Some([].into()), ..lax.clone() }, &outdated),
        "ATT-415"
    );
    let revoked = TdxPolicy { tcb_statuses: [TcbStatus::Revoked].into(), ..strict.clone() };
    assert_eq!(code(revoked.clone(), &outdated), "ATT-414");
    let mut claims = outdated.clone();
    claims.platform.tcb_status = Some(TcbStatus::Revoked);
    assert_eq!(code(revoked, &claims), "ATT-414");

    let good = td(&quote("near-mpc"), "near-mpc", NEAR).unwrap();
    strict.check(&good).unwrap();
    let mrtd = good.quote.body.mr_td;
    TdxPolicy { mr_td: Some([mrtd].into()), ..strict.clone() }.check(&good).unwrap();
    assert_eq!(code(TdxPolicy { mr_td: Some([].into()), ..strict.clone() }, &good), "ATT-415");
    assert_eq!(
        code(TdxPolicy { rtmrs: [None, None, Some([mrtd].into()), None], ..strict.clone() }, &good),
        "ATT-415"
    );
    assert_eq!(code(TdxPolicy { mr_signer_seam: mrtd, ..strict.clone() }, &good), "ATT-415");
    assert_eq!(
        code(TdxPolicy { min_tcb_evaluation_data_number: Some(20), ..strict.clone() }, &good),
        "ATT-415"
    );
    let mut svn = good.quote.body.tcb_svn;
    TdxPolicy { min_tee_tcb_svn: Some(svn), ..strict.clone() }.check(&good).unwrap();
    svn.0[2] += 1;
    assert_eq!(code(TdxPolicy { min_tee_tcb_svn: Some(svn), ..strict.clone() }, &good), "ATT-415");

    let debug = td(&quote("trustee-tdx_quote_4"), "confai-50806f000000-2026-03", CONFAI).unwrap();
    assert!(debug.td_attributes.debug);
    assert!(
        TdxPolicy { tcb_statuses: ALL.into(), ..strict.clone() }
            .check(&debug)
            .unwrap_err()
            .to_string()
            .contains("debug")
    );
    for change in [
        (|c: &mut TdxClaims| c.td_attributes.profiling = true) as fn(&mut TdxClaims),
        |c| c.td_attributes.migratable = true,
        |c| c.td_attributes.servtd_ext = true,
        |c| c.quote.body.mr_servicetd = Some(cvm_base::Bytes([1; 48])),
        |c| c.quote.body.xfam.0[7] = 0x80,
        |c| c.quote.body.xfam.0[0] = 0,
    ] {
        let mut claims = good.clone();
        change(&mut claims);
        assert_eq!(code(strict.clone(), &claims), "ATT-415");
    }
    let mut unknown = good;
    unknown.platform.tcb_status = None;
    assert_eq!(code(strict, &unknown), "ATT-416", "no collateral was given");
}
