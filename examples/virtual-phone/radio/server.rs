//! The GATT service as BlueZ serves it.

use std::num::NonZeroU16;

use bluer::{
    Adapter, Address, Uuid,
    gatt::local::{
        Application, ApplicationHandle, Characteristic, CharacteristicControlHandle, CharacteristicNotify,
        CharacteristicNotifyMethod, CharacteristicRead, CharacteristicReadRequest, CharacteristicWrite,
        CharacteristicWriteMethod, ReqError, Service, characteristic_control,
    },
};
use pocketcard_phone::{Entropy, EntropyError, runtime::Phone};
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

/// Handles of an instance: its own, two for each characteristic, and the subscription's.
const INSTANCE_HANDLES: u16 = 8;

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

/// Where the instances begin among the adapter's attributes: elsewhere each time they are registered.
///
/// bluer names their characteristics to BlueZ in another order each time, and BlueZ numbers them in that order. A host that keeps
/// what it has found, as BlueZ does, takes a service at the handles of one that it knows for that one, and then reads, writes
/// and subscribes where the characteristics were. Other handles make it look again. The characteristics' own cannot be asked
/// for: BlueZ would list them in the order in which they were named, not in that of their handles.
#[derive(Debug)]
pub(super) struct Places(u16);

impl Places {
    /// Above what BlueZ serves itself.
    const FIRST: u16 = 0x0080;
    /// How many there are. BlueZ 5.66 makes no hash of attributes whose handles go to 1,024, by which hosts see that they have
    /// changed; this leaves some to other programs.
    const COUNT: u16 = 0x0180;

    /// Begins anywhere, so that two phones on an adapter, or one that starts again, are at different places.
    ///
    /// # Errors
    /// [`EntropyError`] if the random source failed.
    pub(super) fn new(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut random = [0; 2];
        entropy.fill(&mut random)?;
        Ok(Self(u16::from_be_bytes(random) % Self::COUNT))
    }

    fn next(&mut self) -> u16 {
        let place = self.0;
        self.0 = (place + u16::from(INSTANCES) * INSTANCE_HANDLES) % Self::COUNT;
        Self::FIRST + place
    }
}

/// The service and its channels, there as long as this exists.
pub(super) struct Server {
    instances: JoinSet<()>,
    _registration: ApplicationHandle,
}

impl Server {
    pub(super) async fn start(
        adapter: &Adapter,
        phone: &Phone,
        places: &mut Places,
        output: &Output,
    ) -> Result<Self, RadioError> {
        let channels = channel::Channels::listen(adapter).await;
        if let Err(error) = &channels {
            output.event(&json!({ "event": "radio", "state": "no_l2cap", "reason": error.to_string() }));
        }
        let psm = channels.as_ref().ok().map(channel::Channels::psm);
        let mut departures = Departures::default();
        let mut instances = JoinSet::new();
        let mut services = Vec::new();
        let first = places.next();
        for number in 0..INSTANCES {
            let Some(uuid) = gatt::service(number) else { break };
            let handle = NonZeroU16::new(first + u16::from(number) * INSTANCE_HANDLES);
            let (infos, info_requests) = mpsc::channel(1);
            let (writes, write_handle) = characteristic_control();
            let (subscriptions, notify_handle) = characteristic_control();
            services.push(service(uuid, handle, infos, write_handle, notify_handle));
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
    handle: Option<NonZeroU16>,
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
    Service { uuid: Uuid::from_u128(uuid), handle, primary: true, characteristics, ..Service::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    struct Fixed(u16);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
            buffer.copy_from_slice(&self.0.to_be_bytes());
            Ok(())
        }
    }

    #[test]
    fn services_are_elsewhere_each_time_and_within_reach_of_the_hash() {
        let all = u16::from(INSTANCES) * INSTANCE_HANDLES;
        for random in 0..=u16::MAX {
            let mut places = Places::new(&Fixed(random)).unwrap();
            let begin: Vec<u16> = (0..24).map(|_| places.next()).collect();
            assert!(begin.iter().all(|place| (Places::FIRST..=1024 - all).contains(place)), "{begin:?}");
            assert_eq!(begin.iter().collect::<HashSet<_>>().len(), begin.len(), "{begin:?}");
        }
    }
}
