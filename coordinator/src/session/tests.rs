//! The service behind a real connection, with the test in the place of the run.

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use vst_common::ids::RunId;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::fleet_server::FleetServer;

use super::*;
use crate::roster::{Roster, Terms};
use crate::run::{Said, View};

fn words() -> Words {
    Words {
        run: RunId::new("r"),
        target: String::new(),
        lease_ns: 1,
        heartbeat_ns: 1,
        sample_interval_ns: 1,
        size_classes_ns: 1,
        nodes: Vec::new(),
        indexes: Vec::new(),
    }
}

fn nobody() -> Roster {
    Roster::new(Terms { version: String::new(), token: None, lease_ns: 1, margin_ns: 1 })
}

fn view() -> View {
    View {
        phase: 0,
        phase_name: String::new(),
        step: String::new(),
        phases: 1,
        workers: 0,
        workers_wanted: 1,
        phase_elapsed_ns: 0,
        phase_length_ns: 0,
        units_done: 0,
        units_total: 0,
        message: String::new(),
        ended: None,
    }
}

#[tokio::test]
async fn progress_counts_only_from_a_worker_that_was_let_in() {
    let (events, mut inbox) = mpsc::channel(16);
    let (_shown, status) = watch::channel(Look::default());
    let hub = Arc::new(Hub::new(words(), Some("secret".into()), Generation(0), events, status));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(FleetServer::new(FleetService::new(Arc::clone(&hub))));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = FleetClient::connect(address).await.unwrap();
    let (says, outgoing) = mpsc::channel(16);
    let _orders = client.session(ReceiverStream::new(outgoing)).await.unwrap();
    let send = async |message| says.send(fleet::WorkerMessage { message: Some(message) }).await.unwrap();
    let progress = || FromWorker::Progress(fleet::Progress { errors: 7, ..Default::default() });
    let errors_shown = || hub.board().look(&view(), &nobody(), 0).status.errors;

    // Messages of a stream are read in order: when the run hears of one, those before it were looked at.
    send(FromWorker::Hello(fleet::Hello::default())).await;
    send(progress()).await;
    send(FromWorker::Goodbye(fleet::Goodbye::default())).await;
    let Some(Event::Said(generation, Said::Hello(_))) = inbox.recv().await else { panic!("no hello") };
    // Far longer than a message takes; a slow machine only makes the test easier to pass.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(inbox.try_recv().is_err(), "the run hears nothing of one that was not let in");
    assert_eq!(errors_shown(), 0, "a hello alone does not let a worker in");

    hub.tell(generation, &Tell::Welcome);
    send(FromWorker::Hello(fleet::Hello::default())).await;
    send(progress()).await;
    send(FromWorker::Heartbeat(fleet::Heartbeat::default())).await;
    assert!(matches!(inbox.recv().await, Some(Event::Said(_, Said::Heartbeat { .. }))));
    assert_eq!(errors_shown(), 7, "and a second hello is no news");

    // Whoever begins with anything else is told, and is not heard at all.
    let (says, outgoing) = mpsc::channel(16);
    let mut orders = client.session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    says.send(fleet::WorkerMessage { message: Some(progress()) }).await.unwrap();
    assert_eq!(orders.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(matches!(inbox.recv().await, Some(Event::StreamEnded(_))));
}
