"""The Smalltalk class that does from the image what LMStudioNeuroScopeClient does from Python, as text to file in.

    neuroscope eval --load LMStudioRESTClient.st -e "LMStudioRESTClient default loadModel: 'demo'"

Chunk format. The class stands on the image's Lab, which asks over HTTP; nothing of the lab's token is written down.
"""

from __future__ import annotations

from string import Template

from neuroscope_integration.client import LMStudioNeuroScopeClient

_CLASS = Template("""\
Object subclass: #LMStudioRESTClient
	instanceVariableNames: 'lab'
	classVariableNames: ''
	poolDictionaries: ''
	category: 'NeuroScope-Lab'!

LMStudioRESTClient comment:
'I talk to the activation server of a lab: I load a model, have it chat while hooks capture what happens inside, and
make ActivationTensors of what was captured. The keys of Dictionaries may be written as Symbols or as Strings.

	(LMStudioRESTClient at: ''http://127.0.0.1:8080'') health

lab	<Lab>'!

!LMStudioRESTClient class methodsFor: 'instance creation'!
at: aString
	"Of another lab than the one that I was generated for."

	^ self new setLab: (Lab at: aString)!

default
	^ self at: '$address'! !

!LMStudioRESTClient methodsFor: 'evaluating'!
clearHooks
	^ lab delete: '/v1/activations/hooks'!

generate: messages maxTokens: anInteger temperature: aNumber
	"Answer a chat completion."

	^ lab post: '/v1/chat/completions' body: (Dictionary new
		at: 'messages' put: messages;
		at: 'max_tokens' put: anInteger;
		at: 'temperature' put: aNumber;
		yourself)!

generateWithActivations: messages hooks: hooks
	^ self generateWithActivations: messages hooks: hooks maxTokens: 100 temperature: 0.7!

generateWithActivations: messages hooks: hooks maxTokens: anInteger temperature: aNumber
	"Answer a chat completion that has #activations: hook id -> Array of what each pass captured."

	^ lab post: '/v1/chat/completions/with_activations' body: (Dictionary new
		at: 'messages' put: messages;
		at: 'activation_hooks' put: hooks;
		at: 'max_tokens' put: anInteger;
		at: 'temperature' put: aNumber;
		yourself)!

health
	^ lab get: '/health'!

loadModel: aString
	"By its name, or the folder that the lab was allowed. This waits. Answer what the lab says of it."

	^ lab post: '/v1/models/load' body: (Dictionary new at: 'model_path' put: aString; yourself)!

models
	"Answer the names of those that may be loaded."

	^ lab models!

registerHooks: hooks
	"They stay for requests that name none."

	^ lab post: '/v1/activations/hooks' body: (Dictionary new at: 'activation_hooks' put: hooks; yourself)! !

!LMStudioRESTClient methodsFor: 'accessing'!
createAttentionAnalysisHooks: layers
	"Scores, pattern, queries, keys and values of these layers, counted from 0."

	^ self hooksOf: layers components: #('attention_scores' 'attention_pattern' 'query' 'key' 'value')!

createCircuitAnalysisHooks: layerCount
	"Residual stream, attention and MLP of each layer."

	^ self hooksOf: (0 to: layerCount - 1) components: #('residual' 'attention' 'mlp')!

hook: aString component: component layer: layer
	^ Dictionary new
		at: 'layer_name' put: aString;
		at: 'component' put: component;
		at: 'hook_id' put: 'layer_' , layer printString , '_' , component;
		at: 'capture_input' put: false;
		at: 'capture_output' put: true;
		yourself!

lab
	^ lab! !

!LMStudioRESTClient methodsFor: 'converting'!
convertActivationsForNeuroScope: activations
	"Answer a Dictionary, hook id -> Array of ActivationTensors, one for each pass. What JSON could not hold was null;
	of masked scores, the only such numbers that a sound model makes, it was -infinity."

	| converted |
	converted := Dictionary new.
	activations associations do: [ :each |
		converted at: each key put: (each value collect: [ :entry | self tensorOf: entry ]) asArray ].
	^ converted!

tensorOf: aDictionary
	^ ActivationTensor
		fromNumbers: ((self flattened: (aDictionary at: 'data')) collect: [ :each |
			each ifNil: [ Float infinity negated ] ])
		shape: (aDictionary at: 'shape')! !

!LMStudioRESTClient methodsFor: 'private'!
flattened: anArray
	"Row by row."

	^ Array streamContents: [ :stream | self write: anArray on: stream ]!

hooksOf: layers components: components
	| hooks |
	hooks := OrderedCollection new.
	layers do: [ :layer |
		components do: [ :each |
			hooks add: (self hook: 'transformer.h.' , layer printString component: each layer: layer) ] ].
	^ hooks asArray!

setLab: aLab
	lab := aLab!

write: anObject on: aStream
	(anObject isKindOf: Array)
		ifTrue: [ anObject do: [ :each | self write: each on: aStream ] ]
		ifFalse: [ aStream nextPut: anObject ]! !
""")


def generate_neuroscope_smalltalk_interface(client: LMStudioNeuroScopeClient) -> str:
    """LMStudioRESTClient in chunk format; its `default` is the lab that `client` talks to."""
    return _CLASS.substitute(address=client.base_url.replace("'", "''").replace("!", "!!"))
