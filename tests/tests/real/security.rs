//! A fleet under TLS: who shows no certificate of the fleet's authority, or does not trust it, is not spoken with.

use fleet_tests::certificates::Certificates;
use fleet_tests::cluster::Servers;
use fleet_tests::command::{finish, vst};
use fleet_tests::etcd::Etcd;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use tokio::process::Command;
use vst_common::exit::Exit;

fn etcd_options(command: &mut Command, etcd: &Etcd, certificates: &Certificates) {
    let [certificate, key] = certificates.of("client");
    command.args(["--etcd", &etcd.url()]).arg("--etcd-ca").arg(certificates.authority());
    command.arg("--etcd-cert").arg(certificate).arg("--etcd-key").arg(key);
}

/// Everything by certificates: coordinator, workers, the command line, and etcd, which asks for one too.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_tls_lets_in_its_own_and_nobody_else() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let (own, foreign) =
        (Certificates::new(&["coordinator", "client", "etcd"]), Certificates::new(&["client"]));
    let etcd = Etcd::start_secure(&own).await;
    let mut fleet = Fleet::start_dressed(&results, &servers.url(), &["fleet.workers=1"], |command| {
        etcd_options(command, &etcd, &own);
        own.dress(command, "coordinator");
    });
    let address = fleet.address().await;

    let asked = async |dress: &dyn Fn(&mut Command)| {
        let mut command = vst(&["info", "fleet", "--coordinator", &address, "--json"]);
        dress(&mut command);
        finish(command).await
    };
    let refused = i32::from(Exit::Fleet.code());
    for (who, output) in [
        ("in clear", asked(&|_| {}).await),
        (
            "without a certificate",
            asked(&|c| {
                c.arg("--tls-ca").arg(own.authority());
            })
            .await,
        ),
        ("another authority's", asked(&|c| foreign.dress_trusting(c, "client", &own.authority())).await),
        ("that trusts another", asked(&|c| own.dress_trusting(c, "client", &foreign.authority())).await),
    ] {
        assert_eq!(output.code, refused, "{who}: {} {}", output.stdout, output.stderr);
    }
    let let_in = asked(&|c| own.dress(c, "client")).await;
    assert_eq!(let_in.code, 0, "{}", let_in.stderr);
    assert!(let_in.stdout.contains("\"workers\""), "{}", let_in.stdout);

    // A worker with the wrong certificates says so and leaves; it does not call for a minute.
    fleet.start_worker("foreign", "warn", |command| {
        command.args(["--coordinator", &address]);
        own.dress_trusting(command, "client", &foreign.authority());
    });
    let mut stranger = fleet.workers.remove("foreign").expect("started");
    let status = stranger.wait().await.expect("waited for");
    assert_eq!(status.code(), Some(refused), "{}", fleet.said("foreign"));
    assert!(fleet.said("foreign").contains("certificate"), "{}", fleet.said("foreign"));

    fleet.start_worker("w0", "warn", |command| {
        etcd_options(command, &etcd, &own);
        own.dress(command, "client");
    });
    let (output, workers) = fleet.end().await;
    assert!([0, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
    assert_eq!(workers["w0"], 0, "{}", fleet.said("w0"));
    let key = std::fs::read_to_string(&own.of("coordinator")[1]).expect("a key");
    let secret = key.lines().nth(1).expect("its first line");
    assert!(!output.stderr.contains(secret) && !fleet.said("w0").contains(secret));
}
