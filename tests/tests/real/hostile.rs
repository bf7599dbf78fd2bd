//! Clients that mean harm, or mean well and are broken, in the middle of a run: it ends as if they had not been there.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use arrow_flight::{FlightData, SchemaAsIpc};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{DataType, Field, Schema};
use fleet_tests::cluster::Servers;
use fleet_tests::command::{finish, vst};
use fleet_tests::course::{SLOW_INGEST, controls, every_row_was_written_once, in_mid_ingest};
use fleet_tests::crowd::{Credentials, connect, delivery, opening, put, session};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::{Results, assert_sound, report};
use fleet_tests::sparse;
use fleet_tests::web::{ask, free_port, get};
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use vst_common::batch::events::{self, EventRow};
use vst_common::batch::latency::{self, LatencyRow};
use vst_common::batch::{Stamp, Table};
use vst_common::clock::mono_ns;
use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use vst_common::latency::{Cell, Window};
use vst_proto::fleet;
use vst_proto::fleet::coordinator_message::Message as FromCoordinator;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::worker_message::Message as Said;

const TOKEN: &str = "t0ken-of-the-fleet";
/// Whatever is sent, the coordinator grows by less.
const MOST_GROWTH: u64 = 160 << 20;
/// Refusals that the run writes down; the rest is not worth its directory.
const MOST_REFUSALS: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: an answer in time"))
}

/// Bytes that follow no pattern, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Sends bytes and takes whatever comes back, for a moment.
async fn shout(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    // The other end may hang up at any byte.
    let _ = stream.write_all(bytes).await;
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut Vec::new())).await;
}

/// A connection that has begun to say something and never goes on.
async fn begin(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    stream.write_all(bytes).await.expect("it is taken");
    stream
}

fn hello_of_tls() -> Vec<u8> {
    let mut hello = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    hello.extend(noise(506));
    hello
}

/// What stands on the wire before any service is reached.
async fn wire(ports: [&str; 2]) -> Vec<TcpStream> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of headers that claims 16 MiB, a frame of settings that is none, and one of a kind that there is not.
    let frames = [
        &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1][..],
        &[0, 0, 3, 4, 0, 0, 0, 0, 0, 1, 2, 3],
        &[0, 0, 1, 99, 0, 0, 0, 0, 9, 9],
    ];
    let mut open = Vec::new();
    for port in ports {
        shout(port, &noise(64 << 10)).await;
        shout(port, &hello_of_tls()).await;
        shout(port, b"GET /vst.fleet.v1.Fleet/Session HTTP/1.1\r\nHost: x\r\n\r\n").await;
        shout(port, preface).await;
        for frame in frames {
            shout(port, &[preface, frame].concat()).await;
        }
        for _ in 0..20 {
            open.push(begin(port, b"").await);
            open.push(begin(port, b"PRI * HTTP/2.0\r\n").await);
            open.push(begin(port, b"GET /status HTTP/1.1\r\nHost: x\r\nX-Slow: ").await);
        }
    }
    open
}

async fn http(address: &str) {
    for (method, path) in [("POST", "/status"), ("DELETE", "/"), ("PUT", "/stop")] {
        assert!(matches!(ask(method, address, path).await.code, 404 | 405), "{method} {path}");
    }
    let long = "x".repeat(1 << 20);
    shout(address, format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    shout(address, format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").as_bytes()).await;
    let many: String = (0..10_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    shout(address, format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    shout(
        address,
        format!("POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{long}").as_bytes(),
    )
    .await;
    assert_eq!(get(address, "/healthz").await.code, 200);
}

/// How a session ends that begins with these words, when nobody was let in.
async fn turned_away(channel: &Channel, words: Vec<Said>) -> Code {
    let mut words = words.into_iter();
    let opened = session(channel.clone(), words.next()).await;
    let (messages, mut orders) = match opened {
        Ok(opened) => opened,
        Err(status) => return status.code(),
    };
    for word in words {
        let _ = messages.send(fleet::WorkerMessage { message: Some(word) });
    }
    in_time("a stranger is turned away", async {
        match orders.message().await {
            Ok(Some(order)) => panic!("a stranger was told {order:?}"),
            Ok(None) => Code::Ok,
            Err(status) => status.code(),
        }
    })
    .await
}

/// Nobody of these is let in.
async fn strangers(channel: &Channel) {
    let known = Credentials { token: TOKEN.to_owned(), ..Credentials::own("stranger") };
    let hello = |credentials: &Credentials| Said::Hello(credentials.hello(mono_ns()));
    let progress = || Said::Progress(fleet::Progress { phase: 2, ok: u64::MAX, ..Default::default() });
    for token in ["", "t0ken", "t0ken-of-the-fleet "] {
        let wrong = Credentials { token: token.to_owned(), ..known.clone() };
        assert_eq!(turned_away(channel, vec![hello(&wrong), progress()]).await, Code::Unauthenticated);
    }
    let older = Credentials { version: String::from("0.0.0"), ..known.clone() };
    assert_eq!(turned_away(channel, vec![hello(&older)]).await, Code::FailedPrecondition);
    let taken = Credentials { name: String::from("w0"), ..known.clone() };
    assert_eq!(turned_away(channel, vec![hello(&taken)]).await, Code::AlreadyExists);
    for name in ["", "*", "coordinator"] {
        let nobody = Credentials { name: name.to_owned(), ..known.clone() };
        assert_eq!(turned_away(channel, vec![hello(&nobody)]).await, Code::InvalidArgument);
    }
    let long = Credentials { name: "x".repeat(2 << 20), ..known.clone() };
    assert_ne!(turned_away(channel, vec![hello(&long)]).await, Code::DeadlineExceeded);
    // Orders to a run that they do not belong to, without a hello: a flood of them.
    let flood = (0..5_000).map(|_| Said::Heartbeat(fleet::Heartbeat::default())).collect();
    assert_eq!(turned_away(channel, flood).await, Code::InvalidArgument);
    let done = fleet::PhaseDone { phase: 2, last_sequence: u64::MAX, due: u64::MAX, ..Default::default() };
    assert_eq!(turned_away(channel, vec![Said::PhaseDone(done)]).await, Code::InvalidArgument);
    for _ in 0..100 {
        let wrong = Credentials { token: String::from("guessed"), ..known.clone() };
        assert_eq!(turned_away(channel, vec![hello(&wrong)]).await, Code::Unauthenticated);
    }
    let mut client = FleetClient::new(channel.clone());
    let refused =
        |status: Result<(), Status>| assert_eq!(status.expect_err("refused").code(), Code::Unauthenticated);
    let token = || String::from("guessed");
    refused(client.stop(fleet::StopRequest { reason: String::new(), token: token() }).await.map(drop));
    refused(client.watch(fleet::WatchRequest { token: token(), members: true }).await.map(drop));
    let next = fleet::NextRequest { token: token(), phase_json: String::new(), last: true };
    refused(client.next(next).await.map(drop));
}

fn stamp(run: &str, worker: &str, generation: u64, sequence: u64) -> Stamp {
    Stamp {
        run: RunId::new(run),
        worker: WorkerId::new(worker),
        generation: Generation(generation),
        sequence: Sequence(sequence),
    }
}

fn event(stamp: &Stamp, detail: String) -> RecordBatch {
    let row = EventRow {
        at: 1,
        phase: String::from("load"),
        phase_index: PhaseIndex(2),
        kind: String::from("hostile"),
        node: None,
        detail,
        count: 1,
    };
    events::to_batch(stamp, &[row]).expect("a batch")
}

fn events_of(said_by: &Stamp, rows_of: &Stamp) -> FlightData {
    delivery(said_by, Table::Events, &event(rows_of, String::from("x")))
}

/// A row of latency whose histogram is these bytes.
fn with_histogram(stamp: &Stamp, bytes: &[u8]) -> FlightData {
    let row = LatencyRow {
        phase: String::from("load"),
        phase_index: PhaseIndex(2),
        window: Window::Measure,
        operation: String::from("hset"),
        command: String::from("hset"),
        node: NodeId::new("n"),
        interval_start: 1,
        interval_ns: 1,
        cell: Cell::default(),
    };
    let batch = latency::to_batch(stamp, &[row]).expect("a batch");
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| -> ArrayRef {
        match field.name().as_str() {
            "response_hdr" => Arc::new(BinaryArray::from_iter_values([bytes])),
            _ => Arc::clone(column),
        }
    });
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("the same columns");
    delivery(stamp, Table::Latency, &batch)
}

/// How a delivery stream ends that carries this.
async fn refused(channel: &Channel, token: &str, opening: FlightData, batch: FlightData) -> Code {
    let (messages, mut replies) = match put(channel.clone(), token, opening).await {
        Ok(opened) => opened,
        Err(status) => return status.code(),
    };
    let _ = messages.send(batch);
    match in_time("a delivery is refused", replies.message()).await {
        Ok(reply) => panic!("it was taken: {reply:?}"),
        Err(status) => status.code(),
    }
}

/// Batches that nobody takes, though the token is right. `own` is registered.
async fn deliveries(channel: &Channel, own: &Stamp, other: &Stamp) {
    let run = own.run.as_str();
    let events = || opening(Table::Events);
    let good = events_of(own, own);
    for token in ["", "guessed"] {
        assert_eq!(refused(channel, token, events(), good.clone()).await, Code::Unauthenticated);
    }
    let refused =
        async |opening: FlightData, batch: FlightData| refused(channel, TOKEN, opening, batch).await;
    let foreign = stamp("another-run", own.worker.as_str(), own.generation.0, 1);
    assert_eq!(refused(events(), events_of(&foreign, &foreign)).await, Code::FailedPrecondition);
    for unknown in [
        stamp(run, "nobody", own.generation.0, 1),
        stamp(run, "w0", 1 << 40, 1),
        stamp(run, "coordinator", 1, 1),
    ] {
        assert_eq!(refused(events(), events_of(&unknown, &unknown)).await, Code::PermissionDenied);
    }
    for sequence in [0, u64::MAX] {
        let outside = Stamp { sequence: Sequence(sequence), ..own.clone() };
        assert_eq!(refused(events(), events_of(&outside, &outside)).await, Code::InvalidArgument);
    }
    // Rows of somebody else under one's own name.
    assert_eq!(refused(events(), events_of(own, other)).await, Code::InvalidArgument);
    let bombs = [noise(64), b"\x1c\x84\x93\x13\xff\xff\xff\xff\0\0\0\0\0\0\0\x03".to_vec(), Vec::new()];
    for bytes in bombs {
        assert_eq!(
            refused(opening(Table::Latency), with_histogram(own, &bytes)).await,
            Code::InvalidArgument
        );
    }
    // Another schema, another table's, none, one of a type that no table has.
    let schema = |fields: Vec<Field>| {
        FlightData::from(SchemaAsIpc::new(&Schema::new(fields), &IpcWriteOptions::default()))
    };
    let strange =
        schema(vec![Field::new("worker", DataType::Duration(arrow_schema::TimeUnit::Second), true)]);
    assert_eq!(refused(strange, good.clone()).await, Code::InvalidArgument);
    assert_eq!(refused(opening(Table::Memory), good.clone()).await, Code::InvalidArgument);
    assert_eq!(refused(good.clone(), good.clone()).await, Code::InvalidArgument);
    // Damaged messages: a body that ends early, a directory that is noise, directories with wrong bytes.
    let short = FlightData { data_body: good.data_body.slice(..good.data_body.len() / 2), ..good.clone() };
    assert_eq!(refused(events(), short).await, Code::InvalidArgument);
    let noisy = FlightData { data_header: noise(400).into(), ..good.clone() };
    assert_eq!(refused(events(), noisy).await, Code::InvalidArgument);
    let (messages, mut replies) = put(channel.clone(), TOKEN, events()).await.expect("opened");
    let mut wrong = events_of(&Stamp { sequence: Sequence(0), ..own.clone() }, own);
    wrong.data_header = wrong.data_header.iter().map(|byte| byte ^ 0x10).collect::<Vec<u8>>().into();
    let _ = messages.send(wrong);
    assert!(in_time("damage is refused", replies.message()).await.is_err());
    // Larger than a batch may be, and larger than a message may be.
    let large = |bytes: usize| delivery(own, Table::Events, &event(own, "x".repeat(bytes)));
    assert_eq!(refused(events(), large(4 << 20)).await, Code::InvalidArgument);
    assert_eq!(refused(events(), large(32 << 20)).await, Code::OutOfRange);
}

/// The acknowledged sequence.
async fn told(replies: &mut tonic::Streaming<arrow_flight::PutResult>) -> u64 {
    let reply = in_time("a batch is acknowledged", replies.message()).await.expect("kept").expect("told");
    fleet::Acknowledgement::decode(reply.app_metadata).expect("an acknowledgement").sequence
}

/// A worker that was let in and does everything wrong. Gives its registration and its run.
async fn broken_worker(channel: &Channel) -> Stamp {
    let credentials = Credentials { token: TOKEN.to_owned(), ..Credentials::own("mallory") };
    let hello = credentials.hello(mono_ns());
    let (messages, mut orders) =
        session(channel.clone(), Some(Said::Hello(hello.clone()))).await.expect("it is let in");
    let say = |word| messages.send(fleet::WorkerMessage { message: Some(word) }).expect("it is heard");
    let welcome = loop {
        let order = in_time("it is welcomed", orders.message()).await.expect("kept").expect("told");
        if let Some(FromCoordinator::Welcome(welcome)) = order.message {
            break welcome;
        }
    };
    let own = stamp(&welcome.run, "mallory", welcome.generation, 1);
    say(Said::Hello(hello.clone()));
    say(Said::Hello(fleet::Hello { worker: String::from("w0"), ..hello }));
    for phase in [0, 1, 2, 99, u32::MAX] {
        say(Said::Armed(fleet::Armed { phase }));
        say(Said::LeaseRequest(fleet::LeaseRequest { phase, ranges: u32::MAX }));
        for (start, end) in [(0, 100), (0, u64::MAX), (u64::MAX, 0), (10_000, 20_000)] {
            let range = Some(fleet::RowRange { start, end });
            let ok = end.saturating_sub(start);
            say(Said::RangeDone(fleet::RangeDone { phase, range, ok, ..Default::default() }));
            let first_error = "x".repeat(1 << 16);
            say(Said::RangeDone(fleet::RangeDone {
                phase,
                range,
                failed: u64::MAX,
                first_error,
                ..Default::default()
            }));
        }
        say(Said::RangeDone(fleet::RangeDone { phase, range: None, ..Default::default() }));
        let huge = u64::MAX;
        say(Said::PhaseDone(fleet::PhaseDone {
            phase,
            due: huge,
            sent: huge,
            ok: huge,
            errors: huge,
            dropped: huge,
            ..Default::default()
        }));
        let latency_hdr = b"\x1c\x84\x93\x13\xff\xff\xff\xff\0\0\0\0\0\0\0\x03".to_vec();
        say(Said::Progress(fleet::Progress { phase, latency_hdr, ..Default::default() }));
    }
    for n in 0..20_000_u64 {
        say(Said::Progress(fleet::Progress { phase: 99, due: n, ..Default::default() }));
    }
    // A gap, a repetition, and the gap filled: each is kept once and acknowledged when all before it are.
    let (batches, mut replies) =
        put(channel.clone(), TOKEN, opening(Table::Events)).await.expect("it may deliver");
    let numbered = |sequence| Stamp { sequence: Sequence(sequence), ..own.clone() };
    for sequence in [1, 1, 3, 1, 3, 2] {
        let _ = batches.send(events_of(&numbered(sequence), &numbered(sequence)));
    }
    let mut acknowledged = Vec::new();
    for _ in 0..6 {
        acknowledged.push(told(&mut replies).await);
    }
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, [1, 1, 1, 2, 3, 3]);
    say(Said::Goodbye(fleet::Goodbye { reason: "x".repeat(1 << 16) }));
    // Heard to its last word, unlike one that hangs up.
    drop(messages);
    in_time("its stream ends", async { while let Ok(Some(_)) = orders.message().await {} }).await;
    own
}

async fn query(run: &str, sql: &str) -> Vec<Value> {
    let answer = finish(vst(&["analyze", "query", sql, "--run", run, "--json"])).await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_means_harm_stops_a_run_or_writes_into_it() {
    let (servers, results) = (Servers::standalone().await, Results::new());
    let web = format!("127.0.0.1:{}", free_port());
    let secret = [("VST_TOKEN", TOKEN)];
    let mut fleet = Fleet::start_dressed(&results, &servers.url(), &SLOW_INGEST, |command| {
        command.args(["--cleanup", "--http", &web]).envs(secret);
    });
    let port = fleet.address().await;
    for name in ["w0", "w1"] {
        fleet.start_worker(name, "warn", |command| {
            command.args(["--coordinator", &port]).envs(secret);
        });
    }
    let pid = fleet.coordinator.id().expect("runs");
    in_mid_ingest(&servers).await;
    let before = sparse::most_resident(pid).expect("runs");
    let channel = connect(&port).await;
    let own = broken_worker(&channel).await;
    let other = Stamp { worker: WorkerId::new("w0"), ..own.clone() };
    deliveries(&channel, &Stamp { sequence: Sequence(4), ..own.clone() }, &other).await;
    strangers(&channel).await;
    http(&web).await;
    let slow = wire([&port, &web]).await;
    let silent = session(channel.clone(), None).await;
    // All of them are still there, and have said nothing more.
    assert_eq!(get(&web, "/readyz").await.code, 200);
    let most = sparse::most_resident(pid).expect("the run is not over");

    let (output, workers) = fleet.end().await;
    drop((slow, silent));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(workers.values().all(|code| *code == 0), "{workers:?}");
    for who in ["coordinator", "w0", "w1"] {
        let said = fleet.said(who);
        assert!(!said.contains("panicked"), "{who}: {said}");
    }
    assert!(most - before < MOST_GROWTH, "{before} bytes grew to {most}");
    every_row_was_written_once(&controls(&results).await);
    let run = results.newest();
    let summary = finish(vst(&["analyze", "summary", &run, "--json"])).await;
    assert_sound(&summary, &report(&summary));
    for table in ["latency_all", "health", "recall", "memory"] {
        let rows = query(&run, &format!("select distinct worker from {table}")).await;
        let real = |row: &Value| matches!(row["worker"].as_str(), Some("w0" | "w1"));
        assert!(rows.iter().all(real), "{table}: {rows:?}");
    }
    let told = query(&run, "select worker, sequence, count(*) as n from events where kind = 'hostile' group by worker, sequence order by sequence").await;
    let told: Vec<_> = told
        .iter()
        .map(|row| (row["worker"].as_str(), row["sequence"].as_u64(), row["n"].as_u64()))
        .collect();
    assert_eq!(told, [1, 2, 3].map(|n| (Some("mallory"), Some(n), Some(1))));
    let refusals = query(&run, "select count(*) as n from events where kind = 'worker_refused'").await;
    assert!(refusals[0]["n"].as_u64().is_some_and(|n| (1..=MOST_REFUSALS).contains(&n)), "{refusals:?}");
}
