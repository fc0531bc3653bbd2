//! The GATT service as BlueZ serves it.

use bluer::{
    Adapter, Address, Uuid,
    gatt::local::{
        Application, ApplicationHandle, Characteristic, CharacteristicControlHandle, CharacteristicNotify,
        CharacteristicNotifyMethod, CharacteristicRead, CharacteristicReadRequest, CharacteristicWrite,
        CharacteristicWriteMethod, ReqError, Service, characteristic_control,
    },
};
use pocketcard_phone::runtime::Phone;
use pocketcard_protocol::{gatt, l2cap::CHANNELS_LIMIT};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    RadioError, channel,
    instance::{Instance, Requests},
    limited,
};
use crate::output::Output;

/// Instances of the service, and so hosts at once: BlueZ cannot notify one of several hosts of the same characteristic. Each
/// costs a host some round trips when it sees this phone for the first time.
const INSTANCES: u8 = 2;

/// A host reads `Info`.
pub(super) struct InfoRequest {
    pub(super) central: Address,
    /// The rest of a value that did not fit into one answer begins nothing new.
    pub(super) begins: bool,
    /// The value; dropped if the instance serves another host.
    pub(super) value: oneshot::Sender<Vec<u8>>,
}

/// Tells the instances of hosts that went on over a channel of L2CAP.
#[derive(Clone, Default)]
pub(super) struct Departures(Vec<mpsc::Sender<Address>>);

impl Departures {
    /// Waits for nobody: an instance that serves no more has nothing to let go, and one that is behind lets go when its
    /// host has been silent for long.
    pub(super) fn tell(&self, central: Address) {
        for instance in &self.0 {
            let _ = instance.try_send(central);
        }
    }
}

/// The service and its channels, there as long as this exists.
pub(super) struct Server {
    instances: JoinSet<()>,
    _registration: ApplicationHandle,
}

impl Server {
    pub(super) async fn start(adapter: &Adapter, phone: &Phone, output: &Output) -> Result<Self, RadioError> {
        let channels = channel::Channels::listen(adapter).await;
        if let Err(error) = &channels {
            output.event(&json!({ "event": "radio", "state": "no_l2cap", "reason": error.to_string() }));
        }
        let psm = channels.as_ref().ok().map(channel::Channels::psm);
        let mut departures = Departures::default();
        let mut instances = JoinSet::new();
        let mut services = Vec::new();
        for number in 0..INSTANCES {
            let Some(uuid) = gatt::service(number) else { break };
            let (infos, info_requests) = mpsc::channel(1);
            let (writes, write_handle) = characteristic_control();
            let (subscriptions, notify_handle) = characteristic_control();
            services.push(service(uuid, infos, write_handle, notify_handle));
            let (departure, departed) = mpsc::channel(CHANNELS_LIMIT);
            departures.0.push(departure);
            let requests = Requests { infos: info_requests, writes, subscriptions, departures: departed };
            instances.spawn(Instance::new(number, phone.clone(), psm, output.clone()).run(requests));
        }
        if let Ok(channels) = channels {
            instances.spawn(channels.serve(phone.clone(), departures, output.clone()));
        }
        let application = Application { services, ..Application::default() };
        let registration = limited(adapter.serve_gatt_application(application)).await?;
        Ok(Self { instances, _registration: registration })
    }

    /// Comes back if an instance does not serve any more.
    pub(super) async fn ended(&mut self) {
        self.instances.join_next().await;
    }
}

fn service(
    uuid: u128,
    infos: mpsc::Sender<InfoRequest>,
    write: CharacteristicControlHandle,
    notify: CharacteristicControlHandle,
) -> Service {
    let read = move |request: CharacteristicReadRequest| {
        let infos = infos.clone();
        let answer = async move {
            let (value, answer) = oneshot::channel();
            let central = request.device_address;
            let begins = request.offset == 0;
            infos.send(InfoRequest { central, begins, value }).await.map_err(|_| ReqError::Failed)?;
            // A dropped sender says that the instance is taken.
            let value = answer.await.map_err(|_| ReqError::NotPermitted)?;
            Ok(value.get(usize::from(request.offset)..).unwrap_or_default().to_vec())
        };
        Box::pin(answer) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    let characteristics = vec![
        Characteristic {
            uuid: Uuid::from_u128(gatt::INFO),
            read: Some(CharacteristicRead { read: true, fun: Box::new(read), ..CharacteristicRead::default() }),
            ..Characteristic::default()
        },
        Characteristic {
            uuid: Uuid::from_u128(gatt::HOST_TO_PHONE),
            write: Some(CharacteristicWrite {
                write: true,
                write_without_response: true,
                method: CharacteristicWriteMethod::Io,
                ..CharacteristicWrite::default()
            }),
            control_handle: write,
            ..Characteristic::default()
        },
        Characteristic {
            uuid: Uuid::from_u128(gatt::PHONE_TO_HOST),
            notify: Some(CharacteristicNotify {
                notify: true,
                method: CharacteristicNotifyMethod::Io,
                ..CharacteristicNotify::default()
            }),
            control_handle: notify,
            ..Characteristic::default()
        },
    ];
    Service { uuid: Uuid::from_u128(uuid), primary: true, characteristics, ..Service::default() }
}
