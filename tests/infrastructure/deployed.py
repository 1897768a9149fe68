"""What a stage's templates deploy, as a plan that this machine can run: nothing of it stands in a second list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from functions.table import USUAL_TEMPORARY_MIB, FunctionRow, Use
from local import aws, environment
from local.environment import Addresses, Model
from local.plan import INTEGRATION_SECONDS, Announcement, Bucket, Plan, Queue, Route, Source
from tests.infrastructure.reading import Resource, Template, resources

# Variables whose value is of AWS alone, and why this machine gives its own. All others are the template's.
REPLACED = {
    "RAG_DATABASE_URL": "RDS's address and its certificate; the role in it is the template's",
    "RAG_DATABASE_AUTH": "only RDS takes IAM tokens: roles have passwords here",
    "RAG_DATABASE_SECRET": "RDS makes the owner's; the other roles have none on AWS",
    "RAG_ROLE_SECRETS": "passwords of the roles, which migrate sets here",
    "RAG_IAM_ROLES": "the role that RDS lets in by IAM does not exist here",
    "RAG_REDIS_URL": "ElastiCache's address and its TLS",
    "RAG_REDIS_SECRET": "this machine's server has a password of its own",
    "RAG_MODEL_URL": "the model server is this machine's, and so are its models",
    "RAG_MODEL_SECRET": "its key is the operator's to fill in; the server here needs none",
    "RAG_EMBEDDING_MODEL": "see RAG_MODEL_URL",
    "RAG_EMBEDDING_DIMENSIONS": "see RAG_MODEL_URL",
    "RAG_CHAT_MODEL": "see RAG_MODEL_URL",
    "RAG_TOKENIZER_PATH": "see RAG_MODEL_URL",
    "RAG_WEBHOOK_SECRET": "a stage has none without a webhook; here its address may be set at any time",
    "AWS_LAMBDA_EXEC_WRAPPER": "/var/task lies elsewhere here; which program of it is the template's",
}
_TASK = "/var/task/"
_UNITS = {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600}
# A variable that a function is given where it uses this.
_USES: dict[str, Use] = {
    "RAG_BUCKET": "bucket",
    "RAG_QUEUE_URL": "queue",
    "RAG_RETRY_QUEUE_URL": "retry",
    "RAG_DEAD_LETTER_QUEUE_URL": "dead_letters",
    "RAG_EVENT_BUS": "bus",
    "RAG_VISIBILITY_SECONDS": "reconcile",
    "RAG_MAINTENANCE_QUEUE_URL": "maintenance",
    "RAG_ERASURE_QUEUE_URL": "erasures",
    "RAG_REDIS_URL": "cache",
    "RAG_MODEL_URL": "model",
    "RAG_IAM_ROLES": "roles",
    "RAG_OIDC": "tokens",
    "RAG_AUDIT_DAYS": "audit",
}


@dataclass(frozen=True)
class Deployed:
    """The templates of a stage by stack, and the address of the server that takes the place of AWS."""

    stage: str
    stacks: Mapping[str, Template]
    aws_url: str = "http://aws"

    @cached_property
    def plan(self) -> Plan:
        """What the templates say; sandboxes at once are this machine's, where a stage reserves none."""
        rows = tuple(self._row(function) for function in self._functions)
        return Plan(
            functions=rows,
            concurrency=self._concurrency(),
            settings_of=self.settings_of,
            bucket=self._bucket(),
            queues=tuple(self._queues()),
            sources=tuple(self._sources()),
            routes=self._routes,
            verdict_seconds=self._verdict_seconds(),
        )

    def settings_of(self, row: FunctionRow, addresses: Addresses, model: Model) -> dict[str, str]:
        """The template's variables, with what stands in its `REPLACED` for AWS."""
        here = replace(self, aws_url=addresses.aws_url)
        [function] = [found for found in self._functions if self._short(found["FunctionName"]) == row.name]
        given = {name: here.value(one) for name, one in function["Environment"]["Variables"].items()}
        local = environment.settings_of(row, addresses, model)
        replaced = {name: value for name, value in local.items() if name in REPLACED}
        return {name: value for name, value in given.items() if name not in REPLACED} | replaced

    @property
    def _functions(self) -> list[dict[str, Any]]:
        """Ours: the CDK's own are called by CloudFormation while it deploys."""
        found = [each["Properties"] for each in self._all("AWS::Lambda::Function").values()]
        return [each for each in found if str(each.get("Handler", "")).startswith("functions.")]

    def _concurrency(self) -> dict[str, int]:
        own = {row.name: number for row, number in environment.CONCURRENCY.items()}
        names = {self._short(function["FunctionName"]): function for function in self._functions}
        return {name: each.get("ReservedConcurrentExecutions", own[name]) for name, each in names.items()}

    def _row(self, function: Mapping[str, Any]) -> FunctionRow:
        name = self._short(function["FunctionName"])
        variables = function["Environment"]["Variables"]
        matched = re.fullmatch(r"functions\.(\w+)\.handler\.handler", function["Handler"])
        assert matched, function["Handler"]
        role = urlsplit(self.value(variables["RAG_DATABASE_URL"])).username
        row = FunctionRow(
            name=name,
            timeout_seconds=function["Timeout"],
            memory_mib=function["MemorySize"],
            role=str(role),
            uses=_uses(variables),
            warm="SnapStart" in function,
            temporary_mib=function.get("EphemeralStorage", {}).get("Size", USUAL_TEMPORARY_MIB),
            schedule_seconds=self._schedules.get(name),
            code=None if matched[1] == name else matched[1],
            streams=tuple(
                f"{each.method} {each.path}" for each in self._routes if each.streams and each.function == name
            ),
        )
        wrapper = variables.get("AWS_LAMBDA_EXEC_WRAPPER")
        assert wrapper == (f"{_TASK}{row.wrapper}" if row.wrapper else None)
        return row

    @cached_property
    def _schedules(self) -> dict[str, int]:
        found = {}
        for each in self._all("AWS::Scheduler::Schedule").values():
            schedule = each["Properties"]
            assert (schedule["State"], schedule["Target"]["Input"]) == ("ENABLED", "{}")
            rate = re.fullmatch(r"rate\((\d+) (\w+)\)", schedule["ScheduleExpression"])
            assert rate, schedule["ScheduleExpression"]
            found[self._called(schedule["Target"]["Arn"])] = int(rate[1]) * _UNITS[rate[2]]
        return found

    def _bucket(self) -> Bucket:
        [bucket] = [
            each["Properties"]
            for each in self._all("AWS::S3::Bucket").values()
            if "NotificationConfiguration" in each["Properties"]
        ]
        told = bucket["NotificationConfiguration"]
        assert set(told) == {"QueueConfigurations"}, "this machine's S3 tells queues only"
        return Bucket(
            self.value(bucket["BucketName"]),
            tuple(self._announcement(each) for each in told["QueueConfigurations"]),
            bucket["VersioningConfiguration"]["Status"] == "Enabled",
        )

    def _announcement(self, told: Mapping[str, Any]) -> Announcement:
        rules = told.get("Filter", {}).get("S3Key", {}).get("Rules", [])
        filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
        queue = _last(self.value(told["Queue"]))
        return Announcement(queue, told["Event"], filters.get("prefix", ""), filters.get("suffix", ""))

    def _queues(self) -> Iterator[Queue]:
        found = [each["Properties"] for each in resources(self.stacks["data"], "AWS::SQS::Queue").values()]
        # Those that others give their failures to come first.
        for queue in sorted(found, key=lambda each: "RedrivePolicy" in each):
            redrive = queue.get("RedrivePolicy")
            yield Queue(
                queue["QueueName"],
                queue["MessageRetentionPeriod"],
                queue.get("VisibilityTimeout", 30),
                _last(self.value(redrive["deadLetterTargetArn"])) if redrive else None,
                redrive["maxReceiveCount"] if redrive else None,
            )

    def _sources(self) -> Iterator[Source]:
        for each in self._all("AWS::Lambda::EventSourceMapping").values():
            mapping = each["Properties"]
            yield Source(
                function=self._called(mapping["FunctionName"]),
                queue=_last(self.value(mapping["EventSourceArn"])),
                batch_size=mapping["BatchSize"],
                concurrency=mapping["ScalingConfig"]["MaximumConcurrency"],
                window_seconds=mapping.get("MaximumBatchingWindowInSeconds", 0),
                reports_failures="ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", []),
            )

    @cached_property
    def _routes(self) -> tuple[Route, ...]:
        return tuple(self._route(each["Properties"]) for each in self._all("AWS::ApiGateway::Method").values())

    def _route(self, method: Mapping[str, Any]) -> Route:
        integration = method["Integration"]
        assert integration["Type"] == "AWS_PROXY"
        milliseconds = integration.get("TimeoutInMillis")
        return Route(
            method=method["HttpMethod"],
            path=self._path(method["ResourceId"]),
            function=self._called(integration["Uri"]),
            authorized=method["AuthorizationType"] != "NONE",
            streams=integration.get("ResponseTransferMode") == "STREAM",
            timeout_seconds=milliseconds / 1000 if milliseconds else INTEGRATION_SECONDS,
        )

    def _path(self, reference: Mapping[str, Any]) -> str:
        if "Ref" not in reference:  # the API's root
            return ""
        folder = self.stacks["service"]["Resources"][reference["Ref"]]["Properties"]
        return f"{self._path(folder['ParentId'])}/{folder['PathPart']}"

    def _verdict_seconds(self) -> float:
        [authorizer] = [each["Properties"] for each in self._all("AWS::ApiGateway::Authorizer").values()]
        assert self._called(authorizer["AuthorizerUri"]) == "authorize"
        return float(authorizer["AuthorizerResultTtlInSeconds"])

    def _called(self, reference: Any) -> str:
        """The function that an ARN, or what contains one, invokes by its alias `live`."""
        matched = re.search(rf"\brag-{self.stage}-(\w+):live\b", self.value(reference))
        assert matched, self.value(reference)
        return matched[1]

    def _short(self, function_name: str) -> str:
        return function_name.removeprefix(f"rag-{self.stage}-")

    def _all(self, kind: str) -> dict[str, Resource]:
        return {name: each for stack in self.stacks.values() for name, each in resources(stack, kind).items()}

    def value(self, given: Any) -> str:
        """What CloudFormation would make of a value, with this machine's addresses."""
        match given:
            case str() | int():
                return str(given)
            case {"Ref": _} | {"Fn::GetAtt": _} | {"Fn::ImportValue": _}:
                return self._pointed_at(given)
            case {"Fn::Join": [separator, parts]}:
                return str(separator).join(map(self.value, parts))
            case {"Fn::Select": [index, {"Fn::Split": [separator, whole]}]}:
                return self.value(whole).split(separator)[int(index)]
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([\w:]+)\}", lambda found: self.value({"Ref": found[1]}), text)
        raise NotImplementedError(f"{given} is not resolved here")

    def _pointed_at(self, given: Mapping[str, Any]) -> str:
        match given:
            case {"Ref": name}:
                return self._pseudo(name) or self._reference(name)
            case {"Fn::GetAtt": [name, attribute]}:
                return self._attribute(name, attribute)
        return self.value(self._exports[self.value(given["Fn::ImportValue"])])

    @cached_property
    def _exports(self) -> dict[str, Any]:
        outputs = [output for stack in self.stacks.values() for output in stack.get("Outputs", {}).values()]
        return {self.value(each["Export"]["Name"]): each["Value"] for each in outputs if "Export" in each}

    def _pseudo(self, name: str) -> str | None:
        return {
            "AWS::AccountId": aws.ACCOUNT_ID,
            "AWS::Region": aws.REGION,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
        }.get(name)

    def _found(self, name: str) -> Resource:
        [found] = [stack["Resources"][name] for stack in self.stacks.values() if name in stack["Resources"]]
        return dict(found)

    def _reference(self, name: str) -> str:
        """As the types' documentation says under "Ref"; of what has no place here, its own name."""
        found = self._found(name)
        own = found.get("Properties", {})
        ref: dict[str, Callable[[], str]] = {
            "AWS::SQS::Queue": lambda: f"{self.aws_url}/{aws.ACCOUNT_ID}/{own['QueueName']}",
            "AWS::Events::EventBus": lambda: self.value(own["Name"]),
            "AWS::S3::Bucket": lambda: self.value(own["BucketName"]),
            "AWS::Lambda::Function": lambda: own["FunctionName"],
            "AWS::Lambda::Alias": lambda: _arn("lambda", f"function:{self.value(own['FunctionName'])}:{own['Name']}"),
        }
        return ref.get(found["Type"], lambda: name)()

    def _attribute(self, name: str, attribute: str) -> str:
        found = self._found(name)
        if (found["Type"], attribute) == ("AWS::SQS::Queue", "Arn"):
            return _arn("sqs", found["Properties"]["QueueName"])
        return f"{name}.{attribute}"


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{aws.REGION}:{aws.ACCOUNT_ID}:{resource}"


def _last(arn: str) -> str:
    return arn.rpartition(":")[2]


def _uses(variables: Mapping[str, Any]) -> frozenset[Use]:
    found = {use for variable, use in _USES.items() if variable in variables}
    # Who compares the bucket is told its name, and may not read what is in it.
    return frozenset(found - {"bucket"} if "reconcile" in found else found)
