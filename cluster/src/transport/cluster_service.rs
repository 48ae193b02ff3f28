//! What nodes ask of each other besides Raft.

use std::sync::Arc;

use peat_gateway_proto::cluster as proto;
use peat_gateway_proto::cluster::cluster_server::Cluster;
use tonic::{Request, Response, Status, Streaming};

use super::admission::Admission;
use super::proposals::{ProposalAnswers, ProposalStreams};
use super::questions::{self, Answers};
use super::token::{TokenKey, proves};
use crate::blocking::blocking;
use crate::node::inner::Inner;
use crate::node::versions::versions_to_wire;
use crate::node::{consistency, membership, raise, status};
use crate::wire::stored::member_to_stored;

/// Answers other nodes.
pub(crate) struct ClusterService {
    pub(crate) inner: Arc<Inner>,
    pub(crate) admission: Admission,
    pub(crate) token: TokenKey,
    pub(crate) proposals: ProposalStreams,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn identify(
        &self,
        request: Request<proto::IdentifyRequest>,
    ) -> Result<Response<proto::IdentifyResponse>, Status> {
        let asked = request.into_inner();
        if !proves(&self.token.identify(&asked.challenge), &asked.token_proof) {
            return Err(wrong_token());
        }
        let identity = self.inner.identity();
        let member = self.inner.member();
        let proof = self.token.identified(&asked.challenge, identity.node_id());
        Ok(Response::new(proto::IdentifyResponse {
            node_id: identity.node_id(),
            cluster_id: identity.cluster_id().map(|id| id.to_vec().into()).unwrap_or_default(),
            member: Some(member_to_stored(identity.node_id(), member)),
            token_proof: proof.as_bytes().to_vec().into(),
            versions: Some(versions_to_wire(self.inner.versions())),
            members: self
                .inner
                .membership()
                .nodes()
                .map(|(node_id, member)| member_to_stored(*node_id, member))
                .collect(),
            boot_id: self.inner.boot_id(),
        }))
    }

    async fn adopt(
        &self,
        request: Request<proto::AdoptRequest>,
    ) -> Result<Response<proto::AdoptResponse>, Status> {
        let asked = request.into_inner();
        if !proves(&self.token.adopt(&asked.cluster_id, asked.node_id), &asked.token_proof) {
            return Err(wrong_token());
        }
        let identity = self.inner.identity().clone();
        if asked.node_id != identity.node_id() {
            return Err(Status::failed_precondition("another node is meant"));
        }
        let cluster_id = <[u8; 16]>::try_from(asked.cluster_id.as_ref())
            .map_err(|_| Status::invalid_argument("a cluster id has 16 bytes"))?;
        let store = self.inner.store().clone();
        let belongs_to = blocking(move || identity.adopt(&store, cluster_id))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Status::internal)?;
        Ok(Response::new(proto::AdoptResponse {
            adopted: belongs_to == cluster_id,
            cluster_id: belongs_to.to_vec().into(),
        }))
    }

    type ProposeStream = ProposalAnswers;

    async fn propose(
        &self,
        request: Request<Streaming<proto::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        self.admission.check(request.metadata())?;
        self.proposals.serve(&self.inner, request.into_inner()).map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        self.admission.check(request.metadata())?;
        questions::read_index(&self.inner, None, &proto::ReadQuestion::default())
            .await
            .map(Response::new)
    }

    type ReadIndexesStream = Answers<proto::ReadAnswer>;

    async fn read_indexes(
        &self,
        request: Request<Streaming<proto::ReadQuestion>>,
    ) -> Result<Response<Self::ReadIndexesStream>, Status> {
        let from = self.admission.check(request.metadata())?;
        let answers = questions::read_indexes(self.inner.clone(), from, request.into_inner());
        Ok(Response::new(answers))
    }

    type ConfirmStream = Answers<proto::ConfirmAnswer>;

    async fn confirm(
        &self,
        request: Request<Streaming<proto::ConfirmQuestion>>,
    ) -> Result<Response<Self::ConfirmStream>, Status> {
        self.admission.check(request.metadata())?;
        Ok(Response::new(questions::confirm(self.inner.clone(), request.into_inner())))
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        self.admission.check(request.metadata())?;
        let mut status = status::to_wire(self.inner.local_status(), self.inner.leader());
        self.inner.tell_membership(&mut status);
        Ok(Response::new(status))
    }

    async fn raise_version(
        &self,
        request: Request<proto::RaiseVersionRequest>,
    ) -> Result<Response<proto::RaiseVersionResponse>, Status> {
        self.admission.check(request.metadata())?;
        Ok(Response::new(raise::answer_raise(&self.inner, request.into_inner()).await))
    }

    async fn change_membership(
        &self,
        request: Request<proto::MembershipRequest>,
    ) -> Result<Response<proto::MembershipResponse>, Status> {
        let from = self.admission.check(request.metadata())?;
        let answer = self.inner.change_members_here(request.into_inner(), from).await;
        answer.map(Response::new).map_err(Status::invalid_argument)
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::MembershipResponse>, Status> {
        let source = request.remote_addr().map(|address| address.ip().to_string());
        let asked = request.into_inner();
        let joins =
            membership::announced(asked.member, asked.boot_id).map_err(Status::invalid_argument)?;
        let address = &joins.member.peer_address;
        if !proves(&self.token.join(&asked.cluster_id, joins.node_id, address), &asked.token_proof)
        {
            return Err(wrong_token());
        }
        let own = self.inner.cluster_id().map(|id| id.to_vec()).unwrap_or_default();
        if own != asked.cluster_id.as_ref() {
            return Err(Status::failed_precondition("this node belongs to another cluster"));
        }
        Ok(Response::new(self.inner.join_here(joins, source.unwrap_or_default()).await))
    }

    async fn state_hashes(
        &self,
        request: Request<proto::StateHashesRequest>,
    ) -> Result<Response<proto::StateHashesResponse>, Status> {
        self.admission.check(request.metadata())?;
        if let Some(reason) = self.inner.damaged() {
            // Its word would count against nodes that are right.
            return Err(out_of_service(&reason));
        }
        Ok(Response::new(consistency::answer(self.inner.store().state_hashes())))
    }
}

pub(super) fn out_of_service(reason: &str) -> Status {
    Status::unavailable(format!("this node is out of service: {reason}"))
}

fn wrong_token() -> Status {
    Status::permission_denied("the cluster tokens of the two nodes differ")
}
