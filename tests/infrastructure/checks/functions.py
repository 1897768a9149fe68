"""Promises of functions, of what invokes them, and of their roles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rag.probing import PLACE
from tests.infrastructure.checks.estate import Estate, Resource, listed, statements, text
from tests.infrastructure.checks.table import PROD, PROTECTED, Spoil, check

# Functions that the CDK brings along: they run while a stack is deployed, by CloudFormation's call, and touch no data.
_HELPERS = re.compile(
    r"CustomResourceProvider|^AWS679f53fac002430cb0da5b7982bd2287|Framework(onEvent|isComplete|onTimeout)"
)
_WAYS_OUT = {443, 5432, 6379}
# What has no ARN that could be named (service authorization reference: no resource types).
_WITHOUT_ARN = re.compile(
    r"ec2:(Describe\w+|(Create|Delete)NetworkInterface|(Unassign|Assign)PrivateIpAddresses|GetSecurityGroupsForVpc)"
    r"|xray:(PutTraceSegments|PutTelemetryRecords|GetSampling(Rules|Targets|StatisticSummaries))"
    r"|cloudwatch:(PutMetricData|DescribeAlarms)|logs:(Create|Delete|Get|List|Update)LogDelivery"
    r"|logs:(DescribeLogGroups|DescribeResourcePolicies|PutResourcePolicy)|rds:Describe\w+|cloudformation:ListStacks"
    r"|secretsmanager:GetRandomPassword|sns:GetTopicAttributes|kms:ListAliases|tag:GetResources"
)
# The account's role for API Gateway, which refuses one that may not write any log.
_API_LOGS = re.compile(r"service/ApiAccountLogPolicy\w*: logs:\w+")


def ours(estate: Estate) -> list[Resource]:
    """Functions that are not the CDK's own helpers."""
    return [each for each in estate.of("Lambda::Function") if not _HELPERS.search(each.name)]


def named(estate: Estate, word: str) -> Resource:
    """Our function of that name."""
    [found] = [each for each in ours(estate) if each.get("FunctionName") == f"rag-{estate.stage.name}-{word}"]
    return found


def behind(estate: Estate, source: Resource, value: Any) -> list[Resource]:
    """The functions that a value names, itself or by a version or an alias."""
    found: list[Resource] = []
    for each in estate.targets(source.stack, value):
        if each.kind == "AWS::Lambda::Function":
            found.append(each)
        elif each.kind in {"AWS::Lambda::Alias", "AWS::Lambda::Version"}:
            found += behind(estate, each, each.get("FunctionName"))
    return found


@check("SQS → Lambda", Spoil("SQS::Queue", "VisibilityTimeout", 30))
def invisible_for_long_enough(estate: Estate) -> Iterator[str]:
    """A message stays invisible for six times the function's time-out and its batching window."""
    for mapping in estate.of("Lambda::EventSourceMapping"):
        window = mapping.get("MaximumBatchingWindowInSeconds", 0)
        for queue in estate.targets(mapping.stack, mapping.get("EventSourceArn")):
            for function in behind(estate, mapping, mapping.get("FunctionName")):
                if int(queue.get("VisibilityTimeout", 30)) < 6 * function.get("Timeout") + window:
                    yield f"{queue}: {queue.get('VisibilityTimeout')} s for {function}"


@check("SQS → Lambda", Spoil("Lambda::EventSourceMapping", "FunctionResponseTypes"))
def one_poisoned_message_is_one(estate: Estate) -> Iterator[str]:
    """Every mapping lets a function name the messages of a batch that failed."""
    mappings = estate.of("Lambda::EventSourceMapping")
    if not mappings:
        yield "no queue is read"
    for mapping in mappings:
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield str(mapping)


@check("SQS → Lambda", Spoil("Lambda::EventSourceMapping", "ScalingConfig.MaximumConcurrency", 1000))
def queues_do_not_flood(estate: Estate) -> Iterator[str]:
    """Every mapping has a concurrency of its own: 2 at least, at most what ingest is given."""
    for mapping in estate.of("Lambda::EventSourceMapping"):
        most = mapping.get("ScalingConfig.MaximumConcurrency", 1000)
        if not 2 <= most <= max(2, estate.stage.ingest_concurrency):
            yield f"{mapping}: {most}"


@check("Lambda", Spoil("Lambda::Function", "MemorySize"))
def limits_are_said(estate: Estate) -> Iterator[str]:
    """Every function has a time-out and a memory of its own; what a REST API waits for ends within 29 seconds."""
    for function in ours(estate):
        if not function.get("Timeout") or not function.get("MemorySize"):
            yield str(function)
    for method in estate.of("ApiGateway::Method"):
        if method.get("Integration.ResponseTransferMode") != "STREAM":
            for function in behind(estate, method, method.get("Integration.Uri")):
                if function.get("Timeout") >= 29:
                    yield f"{function}: {function.get('Timeout')} s behind {method}"


@check("Lambda", Spoil("Lambda::Function", "TracingConfig.Mode", "PassThrough"))
def traced(estate: Estate) -> Iterator[str]:
    """Every function is traced and logs JSON into a group of its own that forgets after the stage's days."""
    for function in ours(estate):
        groups = estate.targets(function.stack, function.get("LoggingConfig.LogGroup"))
        if function.get("TracingConfig.Mode") != "Active" or function.get("LoggingConfig.LogFormat") != "JSON":
            yield f"{function}: {function.get('TracingConfig')} {function.get('LoggingConfig')}"
        if [each.get("RetentionInDays") for each in groups] != [estate.stage.log_days]:
            yield f"{function}: logs in {[str(each) for each in groups]}"


@check("Lambda", Spoil("Logs::LogGroup", "RetentionInDays"))
def logs_end(estate: Estate) -> Iterator[str]:
    """Every log group forgets, and is encrypted with an own key where the stage has own keys."""
    for group in estate.of("Logs::LogGroup"):
        if not group.get("RetentionInDays") or (estate.stage.own_keys and not group.get("KmsKeyId")):
            yield str(group)


@check("Lambda", Spoil("Lambda::Function", "ReservedConcurrentExecutions", 1000), stages=PROTECTED)
def connections_suffice(estate: Estate) -> Iterator[str]:
    """Concurrency is reserved, and all functions at once need 80 % of the database's connections at most."""
    # One connection for each sandbox: rag.store keeps a single one.
    reserved = [each.get("ReservedConcurrentExecutions") for each in ours(estate)]
    if None in reserved or sum(filter(None, reserved)) > 0.8 * estate.stage.database_connections:
        yield f"{reserved} of {estate.stage.database_connections}"


@check("Lambda", Spoil("Lambda::EventInvokeConfig", "MaximumRetryAttempts"))
def asynchronous_failures_are_kept(estate: Estate) -> Iterator[str]:
    """What fails when nobody waits is retried for a bounded time and then kept in a queue."""
    for function in ours(estate):
        configured = [
            each
            for each in estate.of("Lambda::EventInvokeConfig")
            if estate.refers(each, each.get("FunctionName"), function)
            and None not in (each.get("MaximumRetryAttempts"), each.get("MaximumEventAgeInSeconds"))
        ]
        kept = function.get("DeadLetterConfig.TargetArn") or any(
            each.get("DestinationConfig.OnFailure.Destination") for each in configured
        )
        if not configured or not kept:
            yield str(function)


@check("Lambda", Spoil("Lambda::Function", "VpcConfig"))
def inside_the_network(estate: Estate) -> Iterator[str]:
    """Every function runs in private subnets under a security group of ours."""
    for function in ours(estate):
        subnets = estate.targets(function.stack, function.get("VpcConfig.SubnetIds"))
        groups = estate.targets(function.stack, function.get("VpcConfig.SecurityGroupIds"))
        if not subnets or any("public" in each.name.lower() for each in subnets):
            yield f"{function}: in {[str(each) for each in subnets]}"
        if not groups or any(each.kind != "AWS::EC2::SecurityGroup" for each in groups):
            yield f"{function}: under {[str(each) for each in groups]}"


@check("Lambda", Spoil("EC2::SecurityGroupEgress", "ToPort", 65535))
def few_ways_out(estate: Estate) -> Iterator[str]:
    """From functions only HTTPS, PostgreSQL and Valkey lead out, and to the whole world HTTPS alone (the model)."""
    groups = [
        found
        for function in ours(estate)
        for found in estate.targets(function.stack, function.get("VpcConfig.SecurityGroupIds"))
    ]
    for group in {str(each): each for each in groups}.values():
        rules = [dict(rule) for rule in group.get("SecurityGroupEgress", [])]
        rules += [
            each.properties
            for each in estate.of("EC2::SecurityGroupEgress")
            if estate.refers(each, each.get("GroupId"), group)
        ]
        for rule in rules:
            ports = rule.get("FromPort"), rule.get("ToPort")
            nowhere = rule.get("CidrIp") == "255.255.255.255/32"
            world = rule.get("CidrIp") == "0.0.0.0/0" or rule.get("CidrIpv6") == "::/0"
            if not nowhere and (ports[0] != ports[1] or ports[0] not in _WAYS_OUT or (world and ports[0] != 443)):
                yield f"{group}: {rule}"


_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(sk|rag|AKIA|ghp)[-_]?[A-Za-z0-9]{16,}|://[^@/<>]*:[^@/<>]+@|-----BEGIN")


@check("Lambda", Spoil("Lambda::Function", "Environment.Variables.RAG_MODEL_SECRET", "sk-abcdefghijklmnopqrstuv"))
def environments_hold_no_secret(estate: Estate) -> Iterator[str]:
    """No environment holds a secret: what is named so is a reference to one, and no value looks like one."""
    for function in estate.of("Lambda::Function"):
        for name, value in function.get("Environment.Variables", {}).items():
            if _SECRET_VALUE.search(text(value)):
                yield f"{function}: the value of {name}"
            elif _SECRET_NAME.search(name) and not estate.targets(function.stack, value) and value != "":
                yield f"{function}: {name}"


@check("Lambda", Spoil("Lambda::Function", "KmsKeyArn"), stages=PROTECTED)
def environments_have_own_keys(estate: Estate) -> Iterator[str]:
    """Every environment is encrypted with an own key."""
    for function in ours(estate):
        if not estate.targets(function.stack, function.get("KmsKeyArn")):
            yield str(function)


@check("Lambda", Spoil("Lambda::Function", "Architectures", ["x86_64"]))
def one_runtime(estate: Estate) -> Iterator[str]:
    """Every function runs on arm64 under the Python that its layers are built for."""
    for function in ours(estate):
        if (function.get("Runtime"), function.get("Architectures")) != ("python3.13", ["arm64"]):
            yield f"{function}: {function.get('Runtime')} {function.get('Architectures')}"


@check("Lambda", Spoil("Lambda::Function", "Handler", "functions.query.handler.other"))
def no_function_has_an_address(estate: Estate) -> Iterator[str]:
    """No function has a URL of its own, and each runs its folder's handler."""
    yield from (str(each) for each in estate.of("Lambda::Url") if each.get("AuthType") != "AWS_IAM")
    for function in ours(estate):
        if not re.fullmatch(r"functions\.(\w+)\.(handler|streaming)\.handler", function.get("Handler")):
            yield f"{function}: {function.get('Handler')}"


@check("Lambda", Spoil("Lambda::Function", "CodeSigningConfigArn"), stages=PROD)
def code_is_signed(estate: Estate) -> Iterator[str]:
    """Every function takes signed code only."""
    for function in ours(estate):
        if not function.get("CodeSigningConfigArn"):
            yield str(function)


@check("Lambda", Spoil("Lambda::Permission", "SourceArn"))
def invoked_by_named_sources(estate: Estate) -> Iterator[str]:
    """A service may invoke a function only for a source of ours, which names the account."""
    for permission in estate.of("Lambda::Permission"):
        source = text(permission.get("SourceArn", ""))
        if "<AWS::AccountId>" not in source or not permission.get("SourceAccount"):
            yield f"{permission}: {source}"


@check("Lambda", Spoil("Lambda::Function", "Environment.Variables.POWERTOOLS_LOGGER_LOG_EVENT", "true"))
def neither_logs_nor_traces_tell_answers(estate: Estate) -> Iterator[str]:
    """Events are not logged, and answers are not put into traces."""
    for function in ours(estate):
        said = function.get("Environment.Variables", {})
        names = "POWERTOOLS_LOGGER_LOG_EVENT", "POWERTOOLS_TRACER_CAPTURE_RESPONSE"
        if [said.get(name) for name in names] != ["false", "false"]:
            yield str(function)


@check("IAM", Spoil("Lambda::Function", "Role", {"Fn::GetAtt": ["QueryRole", "Arn"]}))
def one_role_for_one_function(estate: Estate) -> Iterator[str]:
    """No two functions share a role, and each role is in the templates."""
    roles = [text(each.get("Role")) for each in estate.of("Lambda::Function")]
    yield from (f"{role} is shared" for role in set(roles) if roles.count(role) > 1)
    for function in estate.of("Lambda::Function"):
        if not estate.targets(function.stack, function.get("Role")):
            yield f"{function}: {text(function.get('Role'))}"


def identity_policies(estate: Estate) -> Iterator[tuple[Resource, list[dict[str, Any]]]]:
    """Every policy that grants something to a role; a permissions boundary grants nothing."""
    bounding = [
        found
        for role in estate.of("IAM::Role")
        for found in estate.targets(role.stack, role.get("PermissionsBoundary"))
    ]
    for policy in estate.of("IAM::Policy", "IAM::ManagedPolicy"):
        if policy not in bounding:
            yield policy, statements(policy.get("PolicyDocument"))
    for role in estate.of("IAM::Role"):
        for inline in role.get("Policies", []):
            yield role, statements(inline["PolicyDocument"])


def wildcards(estate: Estate) -> list[str]:
    """Each action that is allowed on everything, with the policy that allows it."""
    return [
        f"{policy}: {action}"
        for policy, found in identity_policies(estate)
        for statement in found
        if statement["Effect"] == "Allow" and "*" in map(text, listed(statement.get("Resource")))
        for action in listed(statement.get("Action"))
    ]


@check("IAM", Spoil("IAM::ManagedPolicy", "PolicyDocument.Statement.0.Action", "*"))
def no_role_may_do_everything(estate: Estate) -> Iterator[str]:
    """No policy allows every action of a service, or uses NotAction or NotResource."""
    for policy, found in identity_policies(estate):
        for statement in found:
            if statement["Effect"] == "Allow":
                actions = listed(statement.get("Action"))
                if any(action == "*" or action.endswith(":*") for action in actions) or {
                    "NotAction",
                    "NotResource",
                } & set(statement):
                    yield f"{policy}: {actions}"


@check("IAM", Spoil("IAM::ManagedPolicy", "PolicyDocument.Statement.0.Resource", "*"))
def everything_only_where_nothing_has_a_name(estate: Estate) -> Iterator[str]:
    """On every resource only what has no ARN to name is allowed."""
    for each in wildcards(estate):
        if not _WITHOUT_ARN.fullmatch(each.rpartition(": ")[2]) and not _API_LOGS.fullmatch(each):
            yield each


@check("IAM", Spoil("IAM::Role", "ManagedPolicyArns", ["arn:aws:iam::aws:policy/AdministratorAccess"]))
def no_administrators(estate: Estate) -> Iterator[str]:
    """No role is an administrator's, and none may pass any role on."""
    for role in estate.of("IAM::Role"):
        for arn in role.get("ManagedPolicyArns", []):
            if re.search(r"AdministratorAccess|PowerUser|FullAccess|IAMFull", text(arn)):
                yield f"{role}: {text(arn)}"
    for each in wildcards(estate):
        if each.endswith("iam:PassRole"):
            yield each


def granted(estate: Estate, function: Resource) -> list[dict[str, Any]]:
    """The statements that allow a function something."""
    [role] = estate.targets(function.stack, function.get("Role"))
    policies = [each for each, _ in identity_policies(estate) if estate.refers(each, each.get("Roles"), role)]
    policies += [each for each in estate.targets(role.stack, role.get("ManagedPolicyArns")) if each not in policies]
    found = [statement for each in policies for statement in statements(each.get("PolicyDocument"))]
    found += [statement for inline in role.get("Policies", []) for statement in statements(inline["PolicyDocument"])]
    return [statement for statement in found if statement["Effect"] == "Allow"]


@check("IAM", Spoil("IAM::ManagedPolicy", "PolicyDocument.Statement.0.Action", "s3:PutObject"))
def only_the_api_changes_documents(estate: Estate) -> Iterator[str]:
    """Only query, which signs uploads, may write documents; only erase may delete them, and nobody both.

    Reconcile may do both to one, which is nobody's.
    """
    changing = {"s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"}
    for function in ours(estate):
        actions = {
            action
            for statement in granted(estate, function)
            if not all(text(resource).endswith(f"/{PLACE.object_key}") for resource in listed(statement["Resource"]))
            for action in listed(statement["Action"])
        }
        allowed = {"s3:PutObject"} if function == named(estate, "query") else set()
        if function == named(estate, "erase"):
            allowed = {"s3:DeleteObject", "s3:DeleteObjectVersion"}
        if found := actions & changing - allowed:
            yield f"{function}: {sorted(found)}"


@check("IAM", Spoil("IAM::Role", "PermissionsBoundary"), stages=PROTECTED)
def roles_are_bounded(estate: Estate) -> Iterator[str]:
    """Every role has a permissions boundary."""
    for role in estate.of("IAM::Role"):
        if not role.get("PermissionsBoundary"):
            yield str(role)


@check(
    "IAM",
    Spoil(
        "IAM::ManagedPolicy",
        "PolicyDocument.Statement.0",
        {"Effect": "Allow", "Action": "rds-db:connect", "Resource": "arn:aws:rds-db:us-east-1:1:dbuser:db/*"},
    ),
    stages=PROTECTED,
)
def database_users_are_named(estate: Estate) -> Iterator[str]:
    """A role connects to the database as users that its policy names, and never as the owner by a token."""
    found = [
        text(resource)
        for _, rows in identity_policies(estate)
        for statement in rows
        if "rds-db:connect" in listed(statement.get("Action"))
        for resource in listed(statement["Resource"])
    ]
    if not found:
        yield "nobody connects by a token"
    yield from (each for each in found if not re.search(r"/rag_(query|ingest|authorize|admin|erase|reconcile)$", each))


@check("EventBridge", Spoil("Scheduler::Schedule", "Target.DeadLetterConfig"))
def schedules_keep_what_fails(estate: Estate) -> Iterator[str]:
    """Every schedule and rule has a queue for what fails and a bounded retry; there is one at least."""
    rows = [(each, each.get("Target", {})) for each in estate.of("Scheduler::Schedule")]
    rows += [(each, target) for each in estate.of("Events::Rule") for target in each.get("Targets", [])]
    if not rows:
        yield "nothing is scheduled"
    for source, target in rows:
        if not target.get("DeadLetterConfig") or "MaximumRetryAttempts" not in target.get("RetryPolicy", {}):
            yield str(source)
